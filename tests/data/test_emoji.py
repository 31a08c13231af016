"""The embedded emoji: what its splits promise, and that the same packages give the same bytes."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contrastive_jax.data import emoji
from contrastive_jax.data.emoji import build, emoji_dataset_builder
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


def values(examples, *features):
  return {tuple(example[feature] for feature in features) for example in examples}


def test_counts(splits):
  counts = {split: len(examples) for split, examples in splits.items()}
  assert counts == {'train': 6918, 'heldout_style': 1599, 'heldout_composition': 644}
  everything = [example for examples in splits.values() for example in examples]
  assert len(values(everything, 'subgroup')) == 98
  assert len(values(everything, 'vendor', 'hexcode')) == len(everything)


def test_every_picture_is_64_by_64_rgb(pixels):
  shapes = {(image.shape, image.dtype) for images in pixels.values() for image in images}
  assert shapes == {((64, 64, 3), np.dtype('uint8'))}


def test_captions_names_and_groups_are_never_empty(splits):
  for examples in splits.values():
    for example in examples:
      assert all(example[key] for key in ('caption', 'concept', 'group', 'subgroup', 'vendor'))
      assert len(example['names']) >= 8 and all(example['names'].values())


def test_a_caption_is_one_emoji(splits):
  everything = [example for examples in splits.values() for example in examples]
  assert len(values(everything, 'caption')) == len(values(everything, 'caption', 'hexcode'))
  assert len(values(everything, 'hexcode')) == len(values(everything, 'caption', 'hexcode'))


@pytest.mark.parametrize('split', ['heldout_style', 'heldout_composition'])
def test_no_held_out_picture_is_trained_on(pixels, split):
  trained = {image.tobytes() for image in pixels['train']}
  assert not trained & {image.tobytes() for image in pixels[split]}


def test_no_held_out_composition_is_trained_on(splits):
  train, held_out = splits['train'], splits['heldout_composition']
  for features in (('caption',), ('hexcode',), ('concept', 'skin_tone')):
    assert not values(train, *features) & values(held_out, *features)
  for language in held_out[0]['names']:
    names = {example['names'][language] for example in held_out}
    assert not names & {example['names'][language] for example in train}


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
  assert sum(len(file) for file in contents(emoji.PREPARED).values()) <= 15e6


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


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
  """A few made-up emoji in the layout of the four packages."""
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
    (names / language).mkdir()
    (names / language / 'data.json').write_text(json.dumps(RECORDS))
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
  return source


def run_build(source, target):
  command = [sys.executable, '-m', 'contrastive_jax.data.emoji.build']
  command += [f'--source={source}', f'--target={target}']
  subprocess.run(command, check=True, timeout=300, capture_output=True)
  return target


@pytest.fixture(scope='module')
def built(packages, tmp_path_factory):
  return run_build(packages, tmp_path_factory.mktemp('built'))


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
