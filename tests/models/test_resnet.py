"""CLIP's ResNet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.models.definition import define
from contrastive_jax.models.resnet import Bottleneck, MeanAttentionPool, average_pool
from tests.models.towers import (
  assert_remat_changes_neither_gradients_nor_statistics,
  drawn,
  made,
  run,
  started,
)

IMAGE = {'tower': 'resnet', 'size': 64, 'width': 4, 'layers': (1, 2, 1, 1), 'heads': 4}
TEXT = {'vocabulary': 32, 'length': 6, 'width': 16, 'layers': 1, 'heads': 2}


def clip_of(**image):
  fields = {'image': IMAGE | image, 'text': TEXT, 'image_projection': 'affine'}
  return define('clip', embed=12, **fields)


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).normal(size=(3, 64, 64, 3)).astype(np.float32)


def parameters(**image):
  # Variances are above 0.
  fold = lambda path, a: np.abs(a) + 0.5 if path[-1].key == 'variance' else a  # noqa: E731
  parameters = jax.device_get(drawn(clip_of(**image)))
  return jax.device_put(jax.tree_util.tree_map_with_path(fold, parameters))


def test_shapes_and_dtype(images):
  for dtype in ('float32', 'bfloat16'):
    model = define('clip', embed=12, image=IMAGE, text=TEXT, image_projection='affine', dtype=dtype)
    encode = lambda p, images: model.bind(p).image(images)  # noqa: E731, B023
    pooled, tokens = jax.eval_shape(encode, parameters(), images)
    assert pooled.shape == (3, 128) and tokens.shape == (3, 4, 128)
    assert pooled.dtype == tokens.dtype == dtype


def test_a_block_starts_as_its_shortcut(images):
  block = started(Bottleneck, 8, 2, halve=False)
  x = np.abs(images[:, :8, :8, :1] + np.arange(8, dtype=np.float32))
  assert block.shortcut is None
  np.testing.assert_array_equal(run(block, x), x)
  halving = started(Bottleneck, 8, 4, halve=True)
  expected = np.maximum(run(halving.shortcut, halved(x)), 0)
  np.testing.assert_allclose(run(halving, x), expected, atol=1e-6)


halved = jax.jit(average_pool)


def test_every_pixel_counts_under_a_stride():
  block = made(Bottleneck, 1, 2, halve=True)
  x = 3 + np.random.default_rng(0).uniform(size=(1, 4, 4, 1)).astype(np.float32)
  assert jax.eval_shape(block, x).shape == (1, 2, 2, 8)
  total = lambda x: jnp.sum(block.shortcut(average_pool(x)) ** 2)  # noqa: E731
  assert np.abs(np.asarray(jax.jit(jax.grad(total))(x))).min() > 0


def test_the_pool_attends_from_the_mean():
  width, heads = 8, 2
  pool = made(MeanAttentionPool, 4, width, heads)
  tokens = np.random.default_rng(0).normal(size=(3, 4, width))
  all_tokens = np.concatenate([tokens.mean(1, keepdims=True), tokens], 1) + np.float64(
    pool.positions[...]
  )
  part = lambda layer: (np.float64(layer.kernel[...]), np.float64(layer.bias[...]))  # noqa: E731
  (query, _), (key_value, _) = part(pool.query), part(pool.key_value)
  q = np.einsum('bd,dhe->bhe', all_tokens[:, 0], query)
  k, v = np.moveaxis(np.einsum('bpd,dkhe->bpkhe', all_tokens, key_value), 2, 0)
  weights = np.exp(np.einsum('bhe,bphe->bhp', q, k) / np.sqrt(width / heads))
  weights /= weights.sum(-1, keepdims=True)
  expected = np.einsum('bhp,bphe->bhe', weights, v).reshape(3, width)
  np.testing.assert_allclose(run(pool, np.float32(tokens)), expected, atol=1e-5)


@pytest.mark.parametrize('remat', [pytest.param('dots', marks=pytest.mark.slow), 'full'])
def test_remat_changes_neither_gradients_nor_statistics(remat, images):
  image = {'layers': (1, 1, 1, 1)}
  assert_remat_changes_neither_gradients_nor_statistics(
    clip_of(**image), clip_of(**image, remat=remat), parameters(**image), images
  )


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    ({'size': 48}, r'image\.size = 48 is not a multiple of 32'),
    ({'layers': (1, 2, 1)}, r'image\.layers = \(1, 2, 1\); a ResNet has 4 stages'),
    ({'layers': 12}, r'image\.layers = 12'),
    ({'layers': (1, 0, 1, 1)}, r'image\.layers = \(1, 0, 1, 1\)'),
    ({'heads': 3}, r'image\.heads = 3 does not divide the 128 features'),
    ({'width': 3}, r'image\.width = 3 is odd'),
    ({'remat': 'some'}, r"remat = 'some'"),
    ({'patch': 16}, r'config\.model\.image\.patch: ResNet takes none of these'),
    ({'tower': 'resnets'}, r"image\.tower = 'resnets'"),
  ],
)
def test_fields_that_do_not_fit_are_refused(image, message):
  with pytest.raises(ValueError, match=message):
    clip_of(**image)


def test_images_of_another_size_are_refused(images):
  with pytest.raises(ValueError, match=r'the model takes \[B, 64, 64, 3\]'):
    clip_of().bind(parameters()).image(images[:, :32])
