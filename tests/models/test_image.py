import functools

import jax
import numpy as np
import pytest

from tests.doubles import slow_but
from tests.models.towers import batch_of, drawn, tiny

SIZE = {'size': 16, 'patch': 4}  # 16 patches


@functools.cache
def encoder(**image):
  """A jitted function from (images, keys) to (pooled, tokens)."""
  definition = tiny(image={**SIZE, 'layers': 1, **image}, text={'layers': 0})
  parameters = drawn(definition)
  tower = lambda images, keys=None: definition.bind(parameters).image(images, keys=keys)  # noqa: E731
  return jax.jit(tower)


def keys(images, seed):
  return jax.random.split(jax.random.key(seed), len(images))


@pytest.fixture
def images():
  return batch_of(SIZE)[0]


@pytest.mark.parametrize('pooling', ['class', 'mean', 'attention'])
@pytest.mark.parametrize(
  ('share', 'kept'), slow_but([(0.5, 8), (0.75, 4), (0.99, 1), (0.01, 16)], (0.5, 8), (0.99, 1))
)
def test_patch_dropout_keeps_its_share(share, kept, pooling):
  image = {**SIZE, 'layers': 1, 'patch_dropout': share, 'pooling': pooling}
  definition = tiny(image=image, text={'layers': 0})

  def encode(parameters, key):
    return definition.bind(parameters).image(
      np.zeros((3, 16, 16, 3), np.float32), keys=jax.random.split(key, 3)
    )

  pooled, tokens = jax.eval_shape(encode, definition.shapes, jax.random.key(0))
  assert pooled.shape == (3, 16)
  assert tokens.shape == (3, kept, 16)


def test_patch_dropout_follows_its_key(images):
  encode = encoder(patch_dropout=0.5)
  one, same, other = (np.asarray(encode(images, keys(images, seed))[0]) for seed in (1, 1, 2))
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - other).max() > 1e-3


def test_without_a_key_no_patch_is_dropped(images):
  expected = encoder()(images)
  for actual, value in zip(encoder(patch_dropout=0.5)(images), expected, strict=True):
    np.testing.assert_array_equal(actual, value)


def test_each_image_loses_its_own_patches():
  images = np.repeat(batch_of(SIZE, size=1)[0], 4, axis=0)
  pooled = np.asarray(encoder(patch_dropout=0.5)(images, keys(images, 0))[0])
  assert len(np.unique(pooled.round(4), axis=0)) == 4


@pytest.mark.parametrize('stem', ['patch', 'convolution'])
def test_tokens_stand_in_reading_order(images, stem):
  # With the positions at zero and no layers, a token is its own patch's alone.
  definition = tiny(
    image={**SIZE, 'stem': stem, 'layers': 0, 'pre_norm': False}, text={'layers': 0}
  )
  parameters = drawn(definition)
  parameters['image']['positions'] *= 0
  encode = jax.jit(lambda images: definition.bind(parameters).image(images)[1])
  changed = images.copy()
  changed[:, 6, 14] += 5.0  # row 1 of the patches, column 3
  difference = (
    np.abs(np.subtract(*map(np.asarray, map(encode, (images, changed)))))
    .max(axis=(0, 2))
    .reshape(4, 4)
  )
  assert difference[1, 3] > 1e-3
  reach = {'patch': 0, 'convolution': 1}[stem]
  rows, columns = np.indices((4, 4))
  far = (abs(rows - 1) > reach) | (abs(columns - 3) > reach)
  np.testing.assert_array_equal(difference[far], 0)
