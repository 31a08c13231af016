import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.models import masked
from contrastive_jax.models.definition import define
from tests.models.towers import drawn

B, P, K = 4, 16, 4
IMAGE = {'size': 16, 'patch': 4, 'width': 16, 'layers': 1, 'heads': 2}
IMAGE |= {'pre_norm': False, 'pooling': 'mean', 'patch_dropout': 0.75}
DECODER = {'width': 8, 'layers': 1, 'heads': 2}


def tiny(**image):
  fields = {'embed': 16, 'image': IMAGE | image, 'pixel_decoder': DECODER}
  return define('masked_autoencoder', **fields, loss_predictor=True)


@functools.cache
def model():
  definition = tiny()
  return definition.bind(drawn(definition))


@functools.cache
def encoder():
  """(images, keys) -> outputs, kept and masked patches, and the images reconstructed."""
  bound = model()

  def encode(images, keys):
    kept, hidden = bound.draw_masks(keys)
    outputs = bound.encode({'image': images}, keys=keys)
    return outputs, kept, hidden, bound.reconstruct(images, kept, hidden)

  return jax.jit(encode)


def images_of(size=B, seed=0):
  return np.random.default_rng(seed).normal(size=(size, 16, 16, 3)).astype(np.float32)


def keys_of(size=B, seed=0):
  return jax.random.split(jax.random.key(seed), size)


def test_patches_are_cut_by_rows_and_joined():
  images = images_of()
  patches = masked.cut_patches(images, 4)
  np.testing.assert_array_equal(patches[:, 5], images[:, 4:8, 4:8].reshape(B, -1))
  np.testing.assert_array_equal(masked.join_patches(patches), images)
  assert masked.cut_patches(images, 5).shape == (B, 9, 75)


def test_what_is_masked_is_not_seen():
  images, keys = images_of(), keys_of()
  outputs, kept, hidden, rebuilt = encoder()(images, keys)
  # The encoder has the visible patches alone.
  assert outputs.image_tokens.shape == (B, K, 16)
  assert outputs.patch_errors.shape == outputs.predicted_errors.shape == (B, P - K)
  rows = np.arange(B)[:, None]
  patches = np.array(masked.cut_patches(images, 4))
  patches[rows, hidden] = patches[rows, hidden][:, ::-1]
  other, *_, changed = encoder()(np.asarray(masked.join_patches(jnp.asarray(patches))), keys)
  for name in ('image_features', 'predicted_errors'):
    np.testing.assert_array_equal(getattr(other, name), getattr(outputs, name))
  assert np.abs(other.patch_errors - outputs.patch_errors).max() > 1e-3
  for found in (rebuilt, changed):
    visible = np.array(masked.cut_patches(found, 4))[rows, kept]
    np.testing.assert_allclose(visible, patches[rows, kept], atol=1e-6)


def test_a_patch_is_decoded_at_its_place():
  # Predictions of a patch do not depend on the order in which the patches are drawn.
  tokens = np.random.default_rng(0).normal(size=(1, K, 16)).astype(np.float32)
  order = np.random.default_rng(1).permutation(P)[None]
  kept, hidden = order[:, :K], order[:, K:]
  turned = kept[:, ::-1], hidden[:, ::-1]
  decode = jax.jit(model().pixel_decoder)
  pixels, errors = decode(tokens, kept, hidden)
  others, ranks = decode(tokens[:, ::-1], *turned)
  np.testing.assert_allclose(others[:, ::-1], pixels, atol=1e-5)
  np.testing.assert_allclose(ranks[:, ::-1], errors, atol=1e-5)


def test_without_keys_nothing_is_masked():
  bound = model()
  shapes = jax.eval_shape(lambda images: bound.encode({'image': images}), images_of())
  assert shapes.image_tokens.shape == (B, P, 16)
  assert shapes.patch_errors.shape == shapes.predicted_errors.shape == (B, P)
  alone = jax.eval_shape(bound.encode_image, images_of())
  assert alone.shape == (B, 16)


def test_the_hardest_patches_are_masked_and_the_rest_is_random():
  size = 256
  hardness = np.random.default_rng(0).permuted(np.tile(np.arange(P), (size, 1)), axis=1)
  bound = model()
  draw = jax.jit(lambda share, keys: bound.draw_masks(keys, jnp.float32(hardness), share))
  for share, hard in ((0.0, 0), (0.5 / 12, 0), (0.5, 6), (1.0, 12)):
    kept, hidden = (np.asarray(each) for each in draw(share, keys_of(size)))
    assert hidden.shape == (size, P - P // 4)
    np.testing.assert_array_equal(np.sort(np.hstack([kept, hidden]), 1), [np.arange(P)] * size)
    found = np.take_along_axis(hardness, kept, 1)
    assert found.max() == P - 1 - hard
    # Of those that are not the hardest, each is kept as often as another.
    counts = np.bincount(found.ravel(), minlength=P)[: P - hard]
    expected = size * K / (P - hard)
    assert np.all(np.abs(counts - expected) <= 4 * np.sqrt(expected))
  np.testing.assert_array_equal(kept, draw(1.0, keys_of(size))[0])


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'stem': 'convolution'}, "image.stem = 'convolution' .*use 'patch'"),
    ({'pooling': 'class'}, "image.pooling = 'class' .*has a class token; use 'mean'"),
    ({'class_token': True}, 'image.class_token = True .*use False'),
    ({'patch_dropout': 0.0}, 'image.patch_dropout = 0.0 masks none of 16 patches'),
  ],
)
def test_its_tower_is_checked(fields, message):
  with pytest.raises(ValueError, match=message):
    tiny(**fields)
