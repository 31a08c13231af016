"""Images cut into patches at their own aspect."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from contrastive_jax.data.patches import grid_of, patchify


def noise(width, height):
  return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
  ('width', 'height', 'grid'),
  [(256, 256, (16, 16)), (640, 480, (14, 18)), (1000, 100, (5, 50)), (100, 1000, (50, 5))],
)
def test_grids_of_siglip_2(width, height, grid):
  assert grid_of(width, height, 256, 16) == grid


@hypothesis.given(
  width=st.integers(1, 5000),
  height=st.integers(1, 5000),
  length=st.integers(1, 1024),
  patch=st.integers(1, 32),
)
def test_a_grid_fills_the_length_at_the_aspect(width, height, length, patch):
  rows, columns = grid_of(width, height, length, patch)
  assert rows >= 1 and columns >= 1 and rows * columns <= length
  # One scale, up to a patch per side; an image that is too thin has one row or column.
  low = max((rows - 1) / height, (columns - 1) / width)
  high = min(rows / height, columns / width)
  assert low <= high * (1 + 1e-3) or 1 in (rows, columns)


@pytest.mark.parametrize(('width', 'height'), [(32, 32), (48, 16), (16, 40)])
def test_an_image_that_fits_is_cut_row_by_row_and_padded(width, height):
  image = noise(width, height)
  patches = patchify(image, (width // 8) * (height // 8), 8)
  rows, columns = patches.grid
  assert (rows, columns) == (height // 8, width // 8)
  joined = patches.pixels.reshape(rows, columns, 8, 8, 3).swapaxes(1, 2)
  np.testing.assert_array_equal(joined.reshape(height, width, 3), np.asarray(image))
  assert patches.pixels.dtype == np.uint8 and patches.grid.dtype == np.int32


def test_patches_end_in_padding():
  patches = patchify(noise(70, 31), 20, 8)
  count = patches.grid.prod()
  assert patches.pixels.shape == (20, 8, 8, 3) and 15 <= count < 20
  assert patches.pixels[:count].any(axis=(1, 2, 3)).all() and not patches.pixels[count:].any()


def test_a_box_is_a_crop():
  image = noise(64, 64)
  box = (8, 16, 40, 32)
  for one, other in zip(
    patchify(image, 8, 8, box=box), patchify(image.crop(box), 8, 8), strict=True
  ):
    np.testing.assert_allclose(one.astype(int), other, atol=1)


def test_modes_become_rgb_last():
  palette = noise(20, 12).convert('P')
  expected = palette.resize((20, 12), Image.Resampling.BICUBIC).convert('RGB')
  patches = patchify(palette, 15, 4)
  joined = patches.pixels.reshape(3, 5, 4, 4, 3).swapaxes(1, 2).reshape(12, 20, 3)
  np.testing.assert_array_equal(joined, np.asarray(expected))
