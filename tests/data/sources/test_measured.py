"""Numbers that are measured from images."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data.sources.measured import Measured, measure

COLORS = {'magenta': 0.0, 'red': 0.17, 'yellow': 0.33, 'lime': 0.5, 'cyan': 0.67, 'blue': 0.83}


def encoded(pixels):
  Image.fromarray(pixels).save(file := io.BytesIO(), 'png')
  return file.getvalue()


@pytest.mark.parametrize(('color', 'hue'), COLORS.items())
def test_hues_are_shares_of_the_circle_from_magenta(color, hue):
  page = Image.new('RGB', (10, 10), 'white')
  page.paste(color, (2, 1, 6, 3))
  found = measure(np.asarray(page))
  assert found['hue'] % 1 == hue
  assert (found['ink'], found['aspect']) == (0.08, 0.67)


def test_an_empty_page_is_a_square_without_ink():
  found = measure(np.full((5, 7, 3), 255, np.uint8))
  assert (found['ink'], found['aspect'], found['chroma']) == (0, 0.5, 0)


def test_examples_have_the_numbers_of_their_images():
  source = data.open_source('measured:emoji', 'train[:8]')
  plain = data.open_source('emoji', 'train[:8]')
  pixels = (np.asarray(Image.open(io.BytesIO(image))) for image in plain.values('image'))
  expected = [measure(each) for each in pixels]
  for name in ('ink', 'aspect', 'chroma', 'hue'):
    assert source.values(name) == [each[name] for each in expected]
  assert source[3] == plain[3] | expected[3]
  assert pickle.loads(pickle.dumps(source)).fields(3) == source.fields(3)


def test_what_cannot_be_measured_is_a_bad_example():
  good = {'image': encoded(np.zeros((4, 4, 3), np.uint8))}
  for bad in ({'image': b'no image'}, {'caption': 'a cat'}):
    with pytest.raises(ValueError, match='cannot be measured'):
      Measured([good, bad])[1]
