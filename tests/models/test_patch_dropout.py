import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.models.patch_dropout import count_kept, draw_patches
from tests.models.towers import batch_of, drawn, tiny

B, P, K = 64, 16, 4


def keys(seed):
  return jax.random.split(jax.random.key(seed), B)


def test_what_is_kept_is_a_function_of_the_key():
  kept = draw_patches(keys(0), P, K)
  np.testing.assert_array_equal(kept, draw_patches(keys(0), P, K))
  np.testing.assert_array_equal(kept[::2], draw_patches(keys(0)[::2], P, K))
  assert np.any(kept != draw_patches(keys(1), P, K))


def test_patches_are_drawn_without_replacement_and_alike():
  kept = np.asarray(draw_patches(keys(0), P, K))
  assert kept.shape == (B, K) and all(len(set(row)) == K for row in kept)
  counts = np.bincount(kept.ravel(), minlength=P)
  assert np.all(np.abs(counts - B * K / P) < 4 * np.sqrt(B * K / P))


def test_padding_is_dropped_first():
  visible = jnp.arange(P) < jnp.arange(B)[:, None] % P + 1
  kept = draw_patches(keys(0), P, K, visible)
  seen = np.take_along_axis(np.asarray(visible), np.asarray(kept), axis=1).sum(1)
  np.testing.assert_array_equal(seen, np.minimum(visible.sum(1), K))


@pytest.mark.parametrize(('share', 'kept'), [(0.0, 16), (0.5, 8), (0.75, 4), (0.99, 1)])
def test_a_share_is_rounded_and_one_patch_remains(share, kept):
  assert count_kept(P, share) == kept


def test_without_dropout_a_tower_in_training_is_the_plain_tower():
  image = {'size': 16, 'patch': 4}
  plain, dropping = (tiny(image=image | {'patch_dropout': share}) for share in (0.0, 0.5))
  parameters, images = drawn(plain), batch_of(image)[0]

  def encode(keys, definition=plain):
    return definition.bind(parameters).image(images, keys=keys)

  given = keys(0)[: len(images)]
  expected, found = jax.jit(lambda given: (encode(None), encode(given)))(given)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  dropped = jax.eval_shape(lambda given: encode(given, dropping)[1], given)
  assert dropped.shape[1] == expected[1].shape[1] / 2
