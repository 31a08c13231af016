"""The embedded emoji: what its splits promise, and that the same packages give the same bytes."""

import hashlib
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tokenizers
from absl import flags
from absl.testing import flagsaver
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contrastive_jax.data import emoji
from contrastive_jax.data.emoji import build, emoji_dataset_builder, vector
from contrastive_jax.data.tokenizers import open_tokenizer
from contrastive_jax.data.train_tokenizer import train_bpe


def read(folder):
  builder = tfds.builder_from_directory(folder)
  skip = {'image': tfds.decode.SkipDecoding()}
  return {
    split: list(builder.as_data_source(split, decoders=skip)) for split in builder.info.splits
  }


def decode(example):
  return np.asarray(Image.open(io.BytesIO(example['image'])))


@pytest.fixture(scope='module')
def splits():
  return read(emoji.PREPARED)


@pytest.fixture(scope='module')
def pixels(splits):
  return {split: [decode(example) for example in splits[split]] for split in splits}


@pytest.fixture(scope='module')
def trained(splits):
  """Everything that may be trained on."""
  return [*splits['train'], *splits['openmoji']]


def values(examples, *features):
  return {tuple(example[feature] for feature in features) for example in examples}


def test_counts(splits):
  counts = {split: len(examples) for split, examples in splits.items()}
  assert counts == {
    'train': 10914, 'openmoji': 3270, 'heldout_style': 1599, 'heldout_composition': 644
  }  # fmt: skip
  everything = [example for examples in splits.values() for example in examples]
  assert len(values(everything, 'subgroup')) == 98
  assert len(values(everything, 'vendor', 'hexcode')) == len(everything)


def test_every_picture_is_64_by_64_rgb(splits):
  pictures = [Image.open(io.BytesIO(e['image'])) for examples in splits.values() for e in examples]
  assert {(picture.size, picture.mode) for picture in pictures} == {((64, 64), 'RGB')}
  assert decode(splits['train'][0]).shape == (64, 64, 3)


def test_captions_names_and_groups_are_never_empty(splits):
  for examples in splits.values():
    for example in examples:
      assert all(example[key] for key in ('caption', 'concept', 'group', 'subgroup', 'vendor'))
      assert len(example['names']) >= 8 and all(example['names'].values())


def test_a_caption_is_one_emoji(splits):
  everything = [example for examples in splits.values() for example in examples]
  assert len(values(everything, 'caption')) == len(values(everything, 'caption', 'hexcode'))
  assert len(values(everything, 'hexcode')) == len(values(everything, 'caption', 'hexcode'))


# SHA-256 of the files: results on these splits stay comparable, whatever joins the training data.
HELD_OUT = {
  'heldout_style': '9c9c94b314664ab559064c62fdd0bd37a513abe18124ebf0d9996d4be2836c17',
  'heldout_composition': '59984a3f2731860e7fa50c5c9917652cf4f20259489f13d568bff69c0ca2ba90',
}


@pytest.mark.parametrize('split', HELD_OUT)
def test_held_out_splits_never_change(split):
  (file,) = emoji.PREPARED.glob(f'emoji-{split}.*')
  assert hashlib.sha256(file.read_bytes()).hexdigest() == HELD_OUT[split]


@pytest.mark.parametrize('split', HELD_OUT)
def test_no_held_out_picture_is_trained_on(splits, trained, split):
  """Nor its file: one encoder made all files, so equal pixels are equal bytes."""
  assert not values(trained, 'image') & values(splits[split], 'image')


@pytest.mark.slow
def test_pictures_are_equal_where_their_files_are(pixels, splits):
  for split, images in pixels.items():
    files = values(splits[split], 'image')
    assert len({image.tobytes() for image in images}) == len(files)
  everything = {image.tobytes() for images in pixels.values() for image in images}
  assert len(everything) == len({e['image'] for part in splits.values() for e in part})


def test_no_held_out_composition_is_trained_on(splits, trained):
  held_out = splits['heldout_composition']
  for features in (('caption',), ('hexcode',), ('concept', 'skin_tone')):
    assert not values(trained, *features) & values(held_out, *features)
  for language in held_out[0]['names']:
    names = {example['names'][language] for example in held_out}
    assert not names & {example['names'][language] for example in trained}


def test_added_styles_draw_emoji_of_noto_and_twemoji_each_picture_once(trained):
  first = [example for example in trained if example['vendor'] in (b'noto', b'twemoji')]
  added = [example for example in trained if example['vendor'] not in (b'noto', b'twemoji')]
  assert values(added, 'hexcode', 'caption') <= values(first, 'hexcode', 'caption')
  assert len(values(added, 'image')) == len(added)
  assert not values(added, 'image') & values(first, 'image')


def test_openmoji_is_a_file_of_its_own_beside_its_license(splits):
  assert values(splits['openmoji'], 'vendor') == {(b'openmoji',)}
  assert (b'openmoji',) not in values(splits['train'], 'vendor')
  text = (emoji.PREPARED / 'LICENSE').read_text()
  (file,) = emoji.PREPARED.glob('emoji-openmoji.*')
  assert file.name in text and 'CC-BY-SA 4.0' in text


def test_every_held_out_concept_and_tone_is_trained_on_by_both_vendors(splits):
  for vendor in (b'noto', b'twemoji'):
    train = [example for example in splits['train'] if example['vendor'] == vendor]
    held_out = [e for e in splits['heldout_composition'] if e['vendor'] == vendor]
    toned = [example for example in train if example['skin_tone']]
    assert values(held_out, 'concept') <= values(toned, 'concept')
    assert values(held_out, 'skin_tone') <= values(toned, 'skin_tone')
    assert values(splits['heldout_style'], 'hexcode', 'caption') <= values(
      train, 'hexcode', 'caption'
    )


def test_held_out_style_is_one_picture_a_concept_and_no_flags(splits):
  examples = splits['heldout_style']
  assert len(values(examples, 'concept')) == len(values(examples, 'caption')) == len(examples)
  assert values(examples, 'vendor', 'skin_tone') == {(b'fluent', b'')}
  assert (b'flags',) not in values(examples, 'group')


def contents(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def test_reading_needs_no_tensorflow_and_writes_nothing():
  times = {path: path.stat().st_mtime_ns for path in (emoji.PREPARED, *emoji.PREPARED.iterdir())}
  code = f"""
import sys
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory({str(emoji.PREPARED)!r})
for split in builder.info.splits:
  builder.as_data_source(split, decoders={{'image': tfds.decode.SkipDecoding()}})[0]
assert 'tensorflow' not in sys.modules
"""
  subprocess.run([sys.executable, '-c', code], check=True, timeout=120)
  after = {path: path.stat().st_mtime_ns for path in (emoji.PREPARED, *emoji.PREPARED.iterdir())}
  assert after == times


def test_the_prepared_set_is_small():
  assert sum(len(file) for file in contents(emoji.PREPARED).values()) <= 27e6


def record(label, hexcode, group, subgroup, **others):
  return {'label': label, 'hexcode': hexcode, 'group': group, 'subgroup': subgroup} | others


FARMERS = [
  record(f'farmer: {tone}', f'1F9D1-{modifier}-200D-1F33E', 1, 1, tone=index)
  for index, (tone, modifier) in enumerate(
    [('light skin tone', '1F3FB'), ('medium skin tone', '1F3FD'), ('dark skin tone', '1F3FF')], 1
  )
]
RECORDS = [
  record('grinning face', '1F600', 0, 0, tags=['happy', 'smile']),
  record('farmer', '1F9D1-200D-1F33E', 1, 1, tags=['gardener'], skins=FARMERS),
  record('light skin tone', '1F3FB', 2, 2),
  record('keycap: 1', '0031-FE0F-20E3', 3, 3),
  record('flag: Japan', '1F1EF-1F1F5', 4, 4, tags=['JP']),
  {'label': 'regional indicator A', 'hexcode': '1F1E6'},
]
META = {
  'groups': {'0': 'smileys', '1': 'people', '2': 'component', '3': 'symbols', '4': 'flags'},
  'subgroups': {'0': 'face', '1': 'role', '2': 'skin-tone', '3': 'keycap', '4': 'country-flag'},
}


def square(color, size=10):
  return {'body': f'<rect width="{size}" height="{size}" fill="{color}"/>'}


# Names of all kinds; another size; two emoji with one picture; a name that no emoji has.
ICONS = {
  'icons': {
    'grin-cldr': square('red'),
    'peasant': square('blue'),
    'farmer-light-skin-tone': square('blue'),
    'farmer-medium-skin-tone': square('green'),
    'farmer-dark-skin-tone': square('black'),
    'flag-for-flag-japan': square('white', 60) | {'width': 20, 'height': 20, 'left': -5},
    'first': square('gray'),
    'light-skin-tone': square('pink'),
  },
  'aliases': {'keycap-1': {'parent': 'grin-cldr'}},
  'width': 10,
  'height': 10,
}
CHARS = {'0031-fe0f-20e3': 'first', 'e123': 'light-skin-tone'}


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
  """A few made-up emoji in the layout of the packages."""
  source = tmp_path_factory.mktemp('packages')
  random = np.random.default_rng(0)
  drawn = [variant for base in RECORDS for variant in (base, *base.get('skins', ()))]

  def unpack(package):
    name, version = package.rsplit('@', 1)
    folder = source / name.strip('@').replace('/', '-') / 'package'
    folder.mkdir(parents=True)
    (folder / 'package.json').write_text(json.dumps({'name': name, 'version': version}))
    return folder

  names = unpack(emoji_dataset_builder.NAMES)
  for language in ('en', *emoji_dataset_builder.LANGUAGES):
    (names / language / 'shortcodes').mkdir(parents=True)
    (names / language / 'data.json').write_text(json.dumps(RECORDS))
  for preset in vector.PRESETS:
    shortcodes = {'1F600': ['grin', f'grin_{preset}'], '1F9D1-200D-1F33E': 'peasant'}
    path = names / 'en' / 'shortcodes' / f'{preset}.json'
    path.write_text(json.dumps(shortcodes))
  (names / 'meta').mkdir()
  (names / 'meta' / 'groups.json').write_text(json.dumps(META))
  for vendor, (package, place) in emoji_dataset_builder.PICTURES.items():
    folder = unpack(package) / place
    folder.mkdir(parents=True)
    for variant in drawn:
      image = Image.fromarray(random.integers(0, 256, (80, 80, 4), 'uint8'))
      stem = variant['hexcode'].lower()
      image.save(folder / (f'{stem}.webp' if vendor == 'fluent' else f'{stem}.png'))
  shutil.copy(folder / '1f600.webp', folder / '01f600-fe0f.webp')
  for vendor, package in emoji_dataset_builder.DRAWINGS.items():
    folder = unpack(package)
    (folder / 'icons.json').write_text(json.dumps(ICONS | {'prefix': vendor}))
    (folder / 'chars.json').write_text(json.dumps(CHARS if vendor == 'openmoji' else {}))
  return source


def run_build(source, target):
  command = [sys.executable, '-m', 'contrastive_jax.data.emoji.build']
  command += [f'--source={source}', f'--target={target}']
  subprocess.run(command, check=True, timeout=300, capture_output=True)
  return target


@pytest.fixture(scope='module')
def built(packages, tmp_path_factory):
  target = tmp_path_factory.mktemp('built')
  parsed = flags.FLAGS.is_parsed()
  with flagsaver.flagsaver(source=str(packages), target=str(target)):
    flags.FLAGS.mark_as_parsed()
    build.main(None)
  if not parsed:
    flags.FLAGS.unparse_flags()
  return target


@pytest.mark.slow
def test_the_same_packages_give_the_same_bytes(packages, built, tmp_path):
  elsewhere = shutil.copytree(packages, tmp_path / 'elsewhere')
  again = run_build(elsewhere, tmp_path / 'again')
  assert contents(again) == contents(built)


def test_packages_are_joined_whatever_their_spelling(built):
  examples = read(built / 'prepared')
  found = {split: values(examples[split], 'hexcode') for split in examples}
  farmers = {(farmer['hexcode'].encode(),) for farmer in FARMERS}
  plain = {(b'1F600',), (b'1F9D1-200D-1F33E',), (b'0031-FE0F-20E3',)}
  assert found['heldout_style'] == plain
  assert len(found['heldout_composition']) == 1
  assert found['heldout_composition'] <= farmers
  assert found['train'] == plain | {(b'1F1EF-1F1F5',)} | farmers - found['heldout_composition']


def test_icons_are_joined_by_code_points_and_by_names(built):
  examples = read(built / 'prepared')
  held_out = {example['caption'].decode() for example in examples['heldout_composition']}
  drawn = {
    (example['vendor'].decode(), example['caption'].decode()): decode(example)[32, 32]
    for split in ('train', 'openmoji')
    for example in examples[split]
  }
  blobs = {caption: color for (vendor, caption), color in drawn.items() if vendor == 'blobs'}
  colors = {
    'grinning face': (255, 0, 0),  # by a shortcode; the keycap repeats its picture
    'farmer': (0, 0, 255),  # and its light skin tone repeats it
    'farmer: medium skin tone': (0, 128, 0),
    'farmer: dark skin tone': (0, 0, 0),
  }
  if 'farmer: light skin tone' in held_out:
    del colors['farmer']  # which repeats what is held out
  colors = {caption: color for caption, color in colors.items() if caption not in held_out}
  assert blobs.keys() == colors.keys() | {'flag: Japan'}
  for caption, color in colors.items():
    np.testing.assert_allclose(blobs[caption], color, atol=8)
  # The other styles repeat the pictures of the first, but for one with code points.
  others = {key for key in drawn if key[0] in ('emojione', 'firefox', 'openmoji')}
  assert others == {('openmoji', 'keycap: 1')}


def test_a_name_belongs_to_the_emoji_of_which_it_is_the_more_official():
  names = {'a': ['up', 'cat face'], 'b': ['Cat & dog', 'up'], 'c': ['cat_face', 'up']}
  index = vector.index_names(names)
  assert index == {'up': 'a', 'catface': 'c', 'catanddog': 'b'}


def test_a_missing_package_is_named(packages, tmp_path):
  shutil.copytree(packages / 'emojibase-data', tmp_path / 'emojibase-data')
  with pytest.raises(ValueError, match=r'source = .*emoji-datasource-google@16.0.0.*npm pack'):
    build.prepare(tmp_path, tmp_path / 'prepared')


def test_the_colour_of_transparent_pixels_does_not_bleed_in(tmp_path):
  picture = np.zeros((256, 256, 4), 'uint8')
  picture[..., 0] = 255
  Image.fromarray(picture).save(tmp_path / 'red.png')
  encoded = emoji_dataset_builder.encode(tmp_path / 'red.png')
  assert decode({'image': encoded}).min() == 255


@given(st.text())
def test_no_text_is_unknown_to_the_tokenizer(text):
  tokenizer = tokenizers.Tokenizer.from_file(str(emoji.TOKENIZER))
  normal = tokenizer.normalizer.normalize_str(text)
  decoded = tokenizer.decode(tokenizer.encode(text).ids)
  assert decoded.removeprefix(' ') == normal.removeprefix(' ')


def test_special_tokens_come_first():
  tokenizer = tokenizers.Tokenizer.from_file(str(emoji.TOKENIZER))
  special = [tokenizer.token_to_id(token) for token in ('<pad>', '<start>', '<end>')]
  assert special == [0, 1, 2]
  assert 2048 <= tokenizer.get_vocab_size() <= 4096


def test_the_tokenizer_is_learned_from_train_alone(splits):
  texts = {t.decode() for e in splits['train'] for t in (e['caption'], *e['tags'])}
  assert train_bpe(texts).to_str(pretty=True) == emoji.TOKENIZER.read_text()


def test_the_bilingual_tokenizer_is_learned_from_train_alone(splits):
  examples = splits['train']
  texts = (t.decode() for e in examples for t in (e['caption'], *e['tags'], e['names']['zh']))
  assert train_bpe(texts).to_str(pretty=True) == emoji.BILINGUAL_TOKENIZER.read_text()


def test_the_bilingual_tokenizer_does_not_truncate_chinese_names(splits):
  names = sorted({example['names']['zh'].decode() for example in splits['train']})

  def truncated(tokenizer):
    return np.mean(open_tokenizer(tokenizer, 16).encode(names)[1] > 0)

  assert truncated('emoji') > 0.5
  assert truncated('emoji_en_zh') < 0.01
