import wave

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data import sounds
from contrastive_jax.data.sources import stamps

ANIMALS = ('frog', 'cow', 'owl', 'bear', 'hen', 'fox', 'pig', 'bee', 'ram', 'doe')


def speak(path, hertz):
  time = np.arange(2_000) / sounds.RATE
  with wave.open(str(path), 'wb') as file:
    file.setparams((1, 2, sounds.RATE, 0, 'NONE', ''))
    file.writeframes((20_000 * np.sin(2 * np.pi * hertz * time)).astype('<i2').tobytes())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp('stamps')
  for number, name in enumerate(ANIMALS):
    Image.new('RGBA', (20, 10), (255, 0, 0, 255)).save(root / f'{name}.png')
    (root / f'{name}.txt').write_text(
      f'A {name}.\nfr.utf8=Un {name}.\nes.utf8=Una {name}\nde.utf8='
    )
    for language in ('fr', 'es')[: 2 - (name == 'cow')]:
      # libsndfile tells WAV by its content.
      speak(root / f'{name}_desc_{language}.ogg', 100 * (number + 1))
  speak(root / 'frog.ogg', 50)  # its own sound
  Image.new('RGB', (4, 4)).save(root / 'nameless.png')
  return str(root)


def sources(folder):
  return [data.open_source(f'tuxpaint:{folder}', split) for split in stamps.SPLITS]


def test_splits_part_the_captions_and_fields_name_the_speech(folder):
  train, heldout = (source.values('caption') for source in sources(folder))
  assert sorted(train + heldout) == sorted(ANIMALS) and heldout and train
  rows = {
    row['caption']: row
    for source in sources(folder)
    for row in map(source.fields, range(len(source)))
  }
  assert rows['frog']['names'] == {'fr': 'Un frog.', 'es': 'Una frog'}
  assert rows['cow']['speech'] == {'fr': f'{folder}/cow_desc_fr.ogg'}
  assert rows['owl']['voices'] == [f'{folder}/owl_desc_es.ogg', f'{folder}/owl_desc_fr.ogg']
  assert [rows[name]['spoken'] for name in ('cow', 'owl')] == [1, 2]


def test_a_stamp_is_square_over_white(folder):
  [image] = data.evaluation_images([sources(folder)[0][0]], 20)
  assert (image[0] == 255).all() and (image[10] == (255, 0, 0)).all()


def test_without_stamps_the_error_names_the_package(tmp_path):
  with pytest.raises(ValueError, match='has no stamps; apt-get install tuxpaint-stamps-default'):
    data.open_source(f'tuxpaint:{tmp_path}', 'train')


def test_a_batch_has_different_sounds_of_each_example(folder):
  pytest.importorskip('soundfile')
  options = {'batch_size': 8, 'image_size': 8, 'captions': {'caption': 1.0}, 'seed': 0}
  options |= {'inputs': ('image', 'tokens', 'audio'), 'audio': ('voices',), 'audio_size': 16}
  encode = lambda texts: np.array([[ord(text[0])] for text in texts])  # noqa: E731
  source = data.open_source(f'tuxpaint:{folder}', 'train[spoken>=2]+heldout[spoken>=2]')
  batch = next(data.training_batches(source, encode, **options, voices=2)[0])
  assert batch['audio'].shape == (8, 2, 16, 16) and batch['audio'].dtype == np.uint8
  # The voices of a name are of one pitch here.
  assert (batch['audio'].max((2, 3)) == 255).all()
  np.testing.assert_array_equal(batch['audio'][:, 0], batch['audio'][:, 1])
  with pytest.raises(ValueError, match=r'2 sounds, and config\.data\.voices = 3.*spoken>=3'):
    data.training_batches(source, encode, **options, voices=3)
  options['audio'] = ('speech.xx',)
  with pytest.raises(ValueError, match=r"\('speech\.xx',\) hold 0 sounds"):
    data.training_batches(source, encode, **options)
