import collections
import wave

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data import sounds
from contrastive_jax.data.sources import composed_sounds

NAMES = ('bell', 'cow', 'drum', 'owl', 'saw', 'cow_bell', 'violin', 'glass', 'frog')
SPLITS = ('train', 'validation', 'heldout')


def write(path, hertz):
  time = np.arange(4_000) / sounds.RATE
  with wave.open(str(path), 'wb') as file:
    file.setparams((1, 2, sounds.RATE, 0, 'NONE', ''))
    file.writeframes((20_000 * np.sin(2 * np.pi * hertz * time)).astype('<i2').tobytes())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sounds')
  (folder / 'more').mkdir()
  for number, name in enumerate(NAMES):
    write(folder / 'more' / f'{name}.wav', 200 * (number + 1))
  write(folder / 'cow2.wav', 3_000)  # another recording of a cow
  (folder / 'README.md').write_text('no sound')
  return str(folder)


@pytest.fixture(scope='module')
def splits(folder):
  pytest.importorskip('soundfile')  # which opening reads an example with
  return {split: data.open_source(f'sounds:{folder}', split) for split in SPLITS}


def test_compositions_differ_between_splits_and_their_sounds_do_not(splits):
  pairs = {split: set(source.values('pair')) for split, source in splits.items()}
  assert not pairs['train'] & pairs['heldout'] and not pairs['validation'] & pairs['heldout']
  for split, source in splits.items():
    for place in (0, 1):
      heard = collections.Counter(parts[place] for parts in source.values('parts'))
      assert heard.keys() == {name.replace('_', ' ') for name in NAMES}
      assert len({*heard.values()}) == 1, split
    captions = source.values('caption')
    assert len({*captions}) == len(captions)
    assert {*collections.Counter(source.values('pair')).values()} == {2}


def test_each_example_has_its_swapped_order_and_wrong_captions_are_wrong(splits):
  captions = set(splits['heldout'].values('caption'))
  for fields in map(splits['heldout'].fields, range(len(splits['heldout']))):
    swapped, second, first = fields['wrong']
    assert swapped == ', then '.join(fields['parts'][::-1]) and swapped in captions
    assert len({fields['caption'], swapped, second, first}) == 4
    assert second.startswith(fields['parts'][0]) and first.endswith(fields['parts'][1])


def test_the_picture_shows_the_first_sound_left_of_the_second(folder, splits):
  source = splits['heldout']
  hertz = {name.replace('_', ' '): 200 * (n + 1) for n, name in enumerate(NAMES) if name != 'cow'}
  row = next(n for n, parts in enumerate(source.values('parts')) if {*parts} <= {*hertz})
  [image] = data.evaluation_images([source[row]], 64)
  # A quarter of a second is a twelfth of the picture, and a sound's row is its frequency.
  rows = [63 - image[:, column, 0].argmax() for column in (2, 8)]
  filters = sounds.mel_filters(64)
  places = [round(hertz[part] * 1024 / sounds.RATE) for part in source[row]['parts']]
  assert np.abs(np.subtract(rows, filters[:, places].argmax(0))).max() <= 1


def test_names_are_words_without_numbers_of_variants():
  names = {
    'cow_bell.wav': 'cow bell',
    'a/perc_bell2.flac': 'perc bell',
    'camera_35mm.ogg': 'camera 35mm',
  }
  names |= {'Oxygen-Sys-Log-In.ogg': 'sys log in', 'glass-breaks-1.ogg': 'glass breaks'}
  assert {path: composed_sounds.name_of(path) for path in names} == names


def test_a_split_or_too_few_sounds_is_an_error(folder, tmp_path, monkeypatch):
  with pytest.raises(ValueError, match=r"no split 'test'; use one of \['heldout', 'valid"):
    data.open_source(f'sounds:{folder}', 'test')
  with pytest.raises(ValueError, match='sounds of 0 names; 7 or more'):
    data.open_source(f'sounds:{tmp_path}', 'train')
  monkeypatch.setattr(composed_sounds, 'INSTALLED', {'oxygen-sounds': (f'{tmp_path}/*',)})
  with pytest.raises(ValueError, match='apt-get install oxygen-sounds'):
    data.open_source('sounds', 'train')


def test_wrong_captions_of_a_field_come_before_those_of_rules(splits):
  vocabulary: dict[str, int] = {}
  encode = lambda texts: np.array([[vocabulary.setdefault(t, len(vocabulary))] for t in texts])  # noqa: E731
  options = {'batch_size': 4, 'image_size': 8, 'captions': {'caption': 1.0}, 'seed': 0}
  options |= {'negatives': 4, 'negative_rules': ('order',), 'negative_captions': 'wrong'}
  batches, _ = data.training_batches(splits['train'], encode, **options)
  batch, texts = next(batches), {}
  texts = {number: text for text, number in vocabulary.items()}
  wrong = dict(zip(splits['train'].values('caption'), splits['train'].values('wrong'), strict=True))
  for caption, negatives in zip(
    batch['tokens'][:, 0], batch['negative_tokens'][..., 0], strict=True
  ):
    given = [texts[number] for number in negatives]
    assert given[:3] == wrong[texts[caption]]
    assert sorted(given[3].replace(',', '').split()) == sorted(
      texts[caption].replace(',', '').split()
    )
