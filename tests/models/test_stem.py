import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from contrastive_jax.models.stem import Convolution, ConvolutionStem, convolution, convolve
from contrastive_jax.sharding.mesh import batch_sharding, make_mesh, on_mesh
from tests.models.towers import run, started, tiny


def stem(blocks):
  return started(ConvolutionStem, 4, 16, blocks=blocks)


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)


def test_a_residual_block_whose_end_is_zero_changes_nothing(images):
  plain, deep = stem(None), stem((2, 1))
  for ours, theirs in zip(deep.convolutions, plain.convolutions, strict=True):
    nnx.update(ours, nnx.state(theirs))
  expected = run(plain, images)
  assert np.abs(run(deep, images) - expected).max() > 1e-2
  for blocks in deep.blocks:
    for block in blocks:
      block.second.kernel[...] *= 0
  np.testing.assert_allclose(run(deep, images), expected, atol=1e-6)


def test_activations_begin_at_the_scale_of_their_input(images):
  for blocks in (None, (2, 2)):
    tokens = run(stem(blocks), images)
    assert tokens.shape == (2, 16, 16)
    assert 0.5 < np.std(tokens) < 2.5


def test_the_dtype_is_kept(images):
  make = {'blocks': (1, 0), 'dtype': jnp.bfloat16}
  encode = lambda x: ConvolutionStem(4, 16, **make, rngs=nnx.Rngs(0))(x)  # noqa: E731
  assert jax.eval_shape(encode, images.astype(jnp.bfloat16)).dtype == 'bfloat16'


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    ({'stem_blocks': (1,)}, r"image\.stem_blocks = \(1,\) need image\.stem = 'convolution'"),
    ({'stem': 'convolution', 'stem_blocks': (1,)}, r'image\.stem_blocks = \(1,\); use 2 numbers'),
    ({'stem': 'convolution', 'stem_blocks': (1, -1)}, r'image\.stem_blocks = \(1, -1\); use 2'),
  ],
)
def test_blocks_that_do_not_fit_are_refused(image, message):
  with pytest.raises(ValueError, match=message):
    tiny(image=image)


def test_bfloat16_gradients_per_channel_are_float32_sums():
  layer = per_channel(dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
  graph, state = nnx.split(layer)
  images = jnp.ones((512, 6, 6, 3), jnp.bfloat16)
  loss = lambda state: nnx.merge(graph, state)(images).astype(jnp.float32).sum()  # noqa: E731
  kernel = nnx.to_pure_dict(jax.grad(loss)(state))['kernel']
  counts = np.outer([4, 5, 6, 5, 4], [4, 5, 6, 5, 4])[..., None, None] * 512.0
  np.testing.assert_array_equal(kernel, np.broadcast_to(counts, (5, 5, 1, 3)))


def test_bfloat16_gradients_are_float32_sums():
  """With inputs and cotangents of one, each gradient counts the outputs that a weight serves."""
  layer = convolution(2, 3, strides=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
  graph, state = nnx.split(layer)
  images = jnp.ones((512, 6, 6, 2), jnp.bfloat16)
  loss = lambda state: nnx.merge(graph, state)(images).astype(jnp.float32).sum()  # noqa: E731
  gradient = nnx.to_pure_dict(jax.grad(loss)(state))
  np.testing.assert_array_equal(gradient['bias'], np.full(3, 512.0 * 9))
  # The last row and column of the kernel lie over the padding once in three times.
  counts = np.outer([3, 3, 2], [3, 3, 2])[..., None, None] * 512.0
  np.testing.assert_array_equal(gradient['kernel'], np.broadcast_to(counts, (3, 3, 2, 3)))


def per_channel(**options):
  """A depthwise convolution without bias, padded as in PyTorch."""
  options |= {'feature_group_count': 3, 'use_bias': False, 'padding': ((2, 2), (2, 2))}
  return Convolution(3, 3, (5, 5), **options)


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize('shape', ['data:2,fsdp:2', 'data:2,tensor:2'])
def test_gradients_are_the_same_on_any_mesh(shape, groups):
  random, (C, D) = np.random.default_rng(0), (4, 8)
  images = random.normal(size=(8, 6, 6, C)).astype(np.float32)
  kernel = random.normal(size=(3, 3, C // groups, D)).astype(np.float32)

  def loss(images, kernel):
    return jnp.sum(convolve(images, kernel, 1, ((1, 1), (1, 1)), groups) ** 2)

  gradient = jax.grad(loss, (0, 1))
  mesh = make_mesh(shape, jax.devices()[:4])
  for axes in ((), (None, None, None, 'fsdp')):
    placed = batch_sharding(mesh), NamedSharding(mesh, jax.P(*axes))
    found = jax.jit(on_mesh(gradient, mesh), in_shardings=placed, out_shardings=placed)
    for ours, one in zip(found(images, kernel), jax.jit(gradient)(images, kernel), strict=True):
      np.testing.assert_allclose(ours, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('strides', [1, 2])
@pytest.mark.parametrize('make', [functools.partial(convolution, 3, 4), per_channel])
def test_a_convolution_is_that_of_flax(make, strides, images):
  layer = make(strides=strides, dtype=jnp.float32, rngs=nnx.Rngs(0))
  graph, state = nnx.split(layer)

  def value_and_gradient(call):
    loss = lambda state, x: jnp.sum(call(nnx.merge(graph, state), x) ** 2)  # noqa: E731
    return jax.jit(jax.value_and_grad(loss, (0, 1)))(state, images)

  ours, theirs = value_and_gradient(type(layer).__call__), value_and_gradient(nnx.Conv.__call__)
  chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-5)
