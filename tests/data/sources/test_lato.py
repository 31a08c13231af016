"""Letters of a font in nine weights."""

import os

import pytest

from contrastive_jax import data
from contrastive_jax.data.sources import lato


@pytest.fixture
def installed():
  """The name of the source; skips without the package."""
  if not os.path.exists(lato.INSTALLED):
    pytest.skip('apt-get install fonts-lato')
  return 'measured:lato'


def test_missing_fonts_are_named_with_their_package(tmp_path):
  with pytest.raises(ValueError, match=r'Hairline\.ttf is missing, .* apt-get install fonts-lato'):
    data.open_source(f'lato:{tmp_path}', 'train')
  with pytest.raises(ValueError, match="no split 'test'; use 'train' or 'heldout'"):
    data.open_source('lato', 'test')


def test_no_letter_is_in_both_splits():
  splits = [lato.Lato('fonts', split) for split in ('train', 'heldout')]
  letters = [{each.fields(number)['letter'] for number in range(len(each))} for each in splits]
  assert not letters[0] & letters[1]
  weights = [splits[1].fields(number)['weight'] for number in range(18)]
  assert weights == [weight for weight in lato.WEIGHTS for _ in range(2)]
  assert splits[0].where(6) == 'fonts/Lato-Regular.ttf'
  assert splits[0].where(7) == 'fonts/Lato-Italic.ttf'


def test_heavier_letters_have_more_ink(installed):
  source = data.open_source(installed, 'heldout[style=upright,letter=e]')
  ink = source.values('ink')
  assert source.values('weight') == [*lato.WEIGHTS] and ink == sorted(ink)
  assert ink[0] < ink[-1]
