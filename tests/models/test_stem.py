import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrastive_jax.models.stem import ConvolutionStem
from tests.models.towers import tiny


def stem(blocks, dtype=jnp.float32):
  return ConvolutionStem(4, 16, blocks=blocks, dtype=dtype, rngs=nnx.Rngs(0))


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)


def test_a_residual_block_whose_end_is_zero_changes_nothing(images):
  plain, deep = stem(None), stem((2, 1))
  for ours, theirs in zip(deep.convolutions, plain.convolutions, strict=True):
    nnx.update(ours, nnx.state(theirs))
  assert np.abs(nnx.jit(deep)(images) - nnx.jit(plain)(images)).max() > 1e-2
  for blocks in deep.blocks:
    for block in blocks:
      block.second.kernel[...] *= 0
  np.testing.assert_allclose(nnx.jit(deep)(images), nnx.jit(plain)(images), atol=1e-6)


def test_activations_begin_at_the_scale_of_their_input(images):
  for blocks in (None, (2, 2)):
    tokens = nnx.jit(stem(blocks))(images)
    assert tokens.shape == (2, 16, 16)
    assert 0.5 < np.std(tokens) < 2.5


def test_the_dtype_is_kept(images):
  assert jax.eval_shape(stem((1, 0), jnp.bfloat16), images.astype(jnp.bfloat16)).dtype == 'bfloat16'


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
