"""Letters of Noto's scripts."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data.sources import scripts


@pytest.fixture
def armenian(tmp_path):
  """The name of the source of one script; skips without the package."""
  path = os.path.join(scripts.INSTALLED, 'NotoSansArmenian-Regular.ttf')
  if not os.path.exists(path):
    pytest.skip(f'apt-get install {scripts.PACKAGE}')
  shutil.copy(path, tmp_path)
  return f'scripts:{tmp_path}'


def pixels(example):
  return np.asarray(Image.open(io.BytesIO(example['image'])))


def test_missing_fonts_are_named_with_their_package(tmp_path):
  for folder in (tmp_path, tmp_path / 'none'):
    with pytest.raises(ValueError, match=r'Armenian-Reg.*apt-get install fonts-noto-core'):
      data.open_source(f'scripts:{folder}', 'train')
  with pytest.raises(ValueError, match="no split 'test'; use 'train', and select by script"):
    data.open_source('scripts', 'test')


def test_letters_are_capitals_or_have_no_case(armenian):
  source = data.open_source(armenian, 'train')
  assert len(source) == 38 * scripts.DRAWINGS and source.where(0).endswith('Armenian-Regular.ttf')
  fields = {name: source.fields(scripts.DRAWINGS + 3)[name] for name in ('letter', 'character')}
  assert fields == {'letter': 'armenian capital letter ben', 'character': 'Բ'}
  assert {*source.values('script')} == {'armenian'}
  assert source.values('drawing')[:21] == [*range(20), 0]


def test_every_drawing_is_another_one_of_its_letter(armenian):
  """No box of a missing letter, nothing cut off, and the same drawing each time."""
  source = data.open_source(armenian, 'train[drawing<4]')
  found = np.stack([pixels(source[number]) for number in range(40)])
  assert found.shape == (40, 64, 64) and len(np.unique(found, axis=0)) == 40
  ink = (255 - found.astype(float)).reshape(10, 4, -1)
  assert 0.02 < ink.mean() / 255 < 0.4
  np.testing.assert_array_equal(pixels(source[7]), found[7])
  # Drawings are nearer to those of their letter than to those of others, on average.
  unit = ink / np.linalg.norm(ink, axis=-1, keepdims=True)
  alike = np.einsum('ikp,jlp->ij', unit, unit) / 16
  assert np.all(np.diagonal(alike) > (alike.sum(1) - np.diagonal(alike)) / 9)


def test_a_letter_that_a_font_lacks_is_left_out(armenian):
  font = scripts._font(scripts.find_letters(armenian.partition(':')[2])[0].path, 32)
  assert scripts._distinct(['Ա', 'א', 'Բ', 'Ա'], font) == ['Ա', 'Բ']


def test_scripts_are_of_moderate_size():
  if not os.path.exists(scripts.INSTALLED):
    pytest.skip(f'apt-get install {scripts.PACKAGE}')
  letters = scripts.find_letters(scripts.INSTALLED)
  own = [each.script for each in letters]
  sizes = [own.count(script) for script in set(own)]
  assert len(sizes) > 50 and scripts.LEAST <= min(sizes) <= max(sizes) <= scripts.MOST
  assert len({each.character for each in letters}) == len(letters)
  assert not {'latin', 'greek', 'cyrillic'} & {*own}  # of the plain font, with much in common
