"""ViTamin."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrastive_jax.models.definition import define
from contrastive_jax.models.vitamin import GatedMlp, average_pool
from tests.models.towers import assert_remat_changes_no_gradient, drawn

IMAGE = {'tower': 'vitamin', 'size': 32, 'width': 16, 'layers': 2, 'heads': 2}
IMAGE |= {'stem_widths': (4, 8), 'stem_blocks': (1, 2)}
TEXT = {'vocabulary': 32, 'length': 6, 'width': 16, 'layers': 1, 'heads': 2}


def clip_of(dtype='float32', **image):
  return define('clip', embed=12, image=IMAGE | image, text=TEXT, dtype=dtype)


@functools.cache
def parameters():
  return drawn(clip_of())


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)


def test_shapes_and_dtype(images):
  for dtype in ('float32', 'bfloat16'):
    model = clip_of(dtype)
    encode = lambda p, images: model.bind(p).image(images)  # noqa: E731, B023
    pooled, tokens = jax.eval_shape(encode, parameters(), images)
    assert pooled.shape == (3, 16) and tokens.shape == (3, 4, 16)
    assert pooled.dtype == tokens.dtype == dtype


def test_a_pool_averages_what_lies_within_the_image():
  x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
  expected = [
    [np.nanmean(padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], (1, 2)) for j in range(3)]
    for i in range(3)
  ]
  np.testing.assert_allclose(average_pool(x), np.moveaxis(expected, 2, 0), rtol=1e-5)


def test_a_gate_of_zero_closes_the_mlp():
  mlp = GatedMlp(8, 12, depth=2, epsilon=1e-6, dtype=jnp.float32, rngs=nnx.Rngs(0))
  x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
  assert np.abs(mlp(x)).max() > 1e-3
  # The MLP normalizes its input.
  np.testing.assert_allclose(mlp(x), mlp(3 * x + 1), atol=1e-4)
  mlp.gate.kernel[...] *= 0
  np.testing.assert_array_equal(mlp(x), np.zeros_like(x))


def test_without_positions_there_is_no_table():
  shapes = clip_of(positions=False).shapes['image']
  assert 'positions' not in shapes and parameters()['image']['positions'].shape == (4, 16)


@pytest.mark.slow
@pytest.mark.parametrize('remat', ['dots', 'full'])
def test_remat_changes_no_gradient(remat, images):
  assert_remat_changes_no_gradient(clip_of(), clip_of(remat=remat), parameters(), images)


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    ({'size': 40}, r'image\.size = 40 is not a multiple of 16, which a ViTamin needs'),
    ({'stem_widths': (4,)}, r'image\.stem_widths = \(4,\); a ViTamin has two stages'),
    ({'stem_blocks': (1, 0)}, r'image\.stem_blocks = \(1, 0\)'),
    ({'heads': 3}, r'width = 16 does not divide over heads = 3'),
  ],
)
def test_fields_that_do_not_fit_are_refused(image, message):
  with pytest.raises(ValueError, match=message):
    clip_of(**image)
