"""ConvNeXt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.models.definition import define
from tests.models.towers import assert_remat_changes_no_gradient, drawn, run

IMAGE = {'tower': 'convnext', 'size': 64, 'width': 4, 'layers': (1, 1, 2, 1)}
TEXT = {'vocabulary': 32, 'length': 6, 'width': 16, 'layers': 1, 'heads': 2}


def clip_of(projection='linear', dtype='float32', **image):
  fields = {'image': IMAGE | image, 'text': TEXT, 'image_projection': projection}
  return define('clip', embed=12, dtype=dtype, **fields)


@functools.cache
def parameters():
  return drawn(clip_of())


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).normal(size=(3, 64, 64, 3)).astype(np.float32)


def test_shapes_and_dtype(images):
  for dtype in ('float32', 'bfloat16'):
    model = clip_of(dtype=dtype)
    encode = lambda p, images: model.bind(p).image(images)  # noqa: E731, B023
    pooled, tokens = jax.eval_shape(encode, parameters(), images)
    assert pooled.shape == (3, 32) and tokens.shape == (3, 4, 32)
    assert pooled.dtype == tokens.dtype == dtype


def test_pooled_is_the_normalized_mean_of_the_tokens(images):
  tower = clip_of().bind(parameters()).image
  pooled, tokens = jax.jit(lambda images: tower(images))(images)
  mean = np.float64(tokens).mean(1)
  centered = mean - mean.mean(-1, keepdims=True)
  scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
  scale, bias = (np.asarray(parameters()['image']['norm'][name]) for name in ('scale', 'bias'))
  np.testing.assert_allclose(pooled, scaled * scale + bias, rtol=1e-4, atol=1e-5)


def test_a_block_with_scale_zero_changes_nothing(images):
  block = clip_of().bind(parameters()).image.stages[2][0]
  x = images[:, :8, :8, :1] + np.arange(16.0, dtype=np.float32)
  assert np.abs(run(block, x) - x).max() > 1e-3
  block.layer_scale.scale[...] *= 0
  np.testing.assert_array_equal(run(block, x), x)


def test_the_convolution_keeps_channels_apart(images):
  convolution = clip_of().bind(parameters()).image.stages[2][0].convolution
  x = jnp.asarray(images[:, :8, :8, :1] + np.arange(16.0, dtype=np.float32))
  difference = np.abs(convolution(x.at[0, 4, 4, 5].add(1.0)) - convolution(x))
  assert difference[..., 5].max() > 1e-3
  assert difference[0, 1:8, 1:8, 5].min() > 0 and not difference[0, 0].any()
  np.testing.assert_array_equal(np.delete(difference, 5, -1), 0)


@pytest.mark.slow
@pytest.mark.parametrize('remat', ['dots', 'full'])
def test_remat_changes_no_gradient(remat, images):
  assert_remat_changes_no_gradient(clip_of(), clip_of(remat=remat), parameters(), images)


def test_an_mlp_may_project():
  model = clip_of('mlp')
  shapes = model.shapes['image_projection']
  assert shapes['up']['kernel'].shape == (32, 24) and shapes['down']['kernel'].shape == (24, 12)
  assert 'bias' in shapes['up'] and 'bias' not in shapes['down']


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    ({'size': 72}, r'image\.size = 72 is not a multiple of 32, which a ConvNeXt needs'),
    ({'layers': (3, 3, 9)}, r'image\.layers = \(3, 3, 9\); a ConvNeXt has 4 stages'),
    ({'heads': 2}, r'config\.model\.image\.heads: ConvNext takes none of these'),
  ],
)
def test_fields_that_do_not_fit_are_refused(image, message):
  with pytest.raises(ValueError, match=message):
    clip_of(**image)
