"""FastViT."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.models.definition import define
from contrastive_jax.models.fastvit import Branches, SqueezeExcite
from tests.models.towers import (
  assert_remat_changes_neither_gradients_nor_statistics,
  drawn,
  made,
  run,
)

IMAGE = {'tower': 'fastvit', 'size': 32, 'width': 4, 'layers': (1, 1, 2, 1)}
TEXT = {'vocabulary': 32, 'length': 6, 'width': 16, 'layers': 1, 'heads': 2}


def clip_of(dtype='float32', **image):
  fields = {'image': IMAGE | image, 'text': TEXT, 'image_projection': 'affine'}
  return define('clip', embed=12, dtype=dtype, **fields)


@functools.cache
def parameters():
  # Variances are above 0.
  fold = lambda path, a: jnp.abs(a) + 0.5 if path[-1].key == 'variance' else a  # noqa: E731
  return jax.tree_util.tree_map_with_path(fold, drawn(clip_of()))


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(
  ('image', 'tokens'),
  [
    ({}, (3, 1, 64)),
    pytest.param(
      {'layers': (1, 1, 1, 1, 1), 'attention_stages': 2, 'norm': 'layer', 'size': 64},
      (3, 1, 128),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_shapes_and_dtype(image, tokens):
  for dtype in ('float32', 'bfloat16'):
    model = clip_of(dtype, **image)
    encode = lambda p, images: model.bind(p).image(images)  # noqa: E731, B023
    side = model.bind(model.shapes).image.size
    found = jax.eval_shape(encode, model.shapes, np.zeros((3, side, side, 3), np.float32))
    assert found[0].shape == (3, tokens[-1]) and found[1].shape == tokens
    assert found[0].dtype == found[1].dtype == dtype


def merged(normalized):
  """Kernel [h, w, C, D] and bias [D] of a convolution and the running statistics of its norm."""
  norm = normalized.norm
  scale, bias, mean, variance = map(
    np.asarray, (norm.scale[...], norm.bias[...], norm.mean[...], norm.variance[...])
  )
  factor = scale / np.sqrt(variance + 1e-5)
  kernel = np.asarray(normalized.convolution.kernel[...])
  kernel = kernel.reshape(1, 1, *kernel.shape) if kernel.ndim == 2 else kernel
  return kernel * factor, bias - mean * factor


def test_branches_are_one_convolution_in_evaluation(images):
  block = made(Branches, 3, 3, 3, activate=False)
  random = np.random.default_rng(0)
  for norm in (block.large.norm, block.point.norm, block.identity):
    for parameter in (norm.scale, norm.bias, norm.mean):
      parameter[...] = random.normal(size=3).astype(np.float32)
    norm.variance[...] = random.uniform(0.5, 2, 3).astype(np.float32)
  (kernel, bias), (point, point_bias) = merged(block.large), merged(block.point)
  scale, offset, mean, variance = (
    np.asarray(getattr(block.identity, name)[...]) for name in ('scale', 'bias', 'mean', 'variance')
  )
  factor = scale / np.sqrt(variance + 1e-5)
  kernel[1, 1] += point[0, 0] + np.diag(factor)
  bias += point_bias + offset - mean * factor
  layout = ('NHWC', 'HWIO', 'NHWC')
  one = jax.lax.conv_general_dilated(images, kernel, (1, 1), 'SAME', dimension_numbers=layout)
  np.testing.assert_allclose(run(block, images), np.asarray(one) + bias, atol=1e-4)


def test_squeeze_and_excite_scales_channels(images):
  ratio = run(made(SqueezeExcite, 3, 2), images) / images
  np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-4)
  assert ratio.min() > 0 and ratio.max() < 1


@pytest.mark.slow
@pytest.mark.parametrize('remat', ['dots', 'full'])
def test_remat_changes_neither_gradients_nor_statistics(remat, images):
  assert_remat_changes_neither_gradients_nor_statistics(
    clip_of(), clip_of(remat=remat), parameters(), images
  )


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    ({'size': 48}, r'image\.size = 48 is not a multiple of 32, which this FastViT needs'),
    ({'layers': (1, 1, 1, 1, 1)}, r'image\.size = 32 is not a multiple of 64'),
    ({'layers': (1,)}, r'image\.layers = \(1,\); a FastViT has several stages'),
    ({'norm': 'group'}, r"image\.norm = 'group'"),
  ],
)
def test_fields_that_do_not_fit_are_refused(image, message):
  with pytest.raises(ValueError, match=message):
    clip_of(**image)
