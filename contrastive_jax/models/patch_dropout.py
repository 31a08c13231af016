"""Patch dropout: a vision transformer in training sees a random part of each image's patches."""

import jax
import jax.numpy as jnp


def draw_patches(
  keys: jax.Array, patches: int, kept: int, visible: jax.Array | None = None
) -> jax.Array:
  """Draws the patches that FLIP [1] keeps of each image, without replacement.

      L = InfoNCE( tower(x_κ + p_κ), text ),   κ: K of P patches,   K = max(1, round((1 − share) P))

  The tower computes on the K patches alone, each with the position p of its place in the image, so
  a step takes about 1 − share of the time and memory. `config.model.image.patch_dropout` is the
  share. Evaluation sees all patches. So do the last steps of training,
  `config.unmasked_fraction` of them: [1]'s unmasked tuning, which closes the gap between the two.

  Args:
    keys: [B], choose the patches of each image.
    patches: P.
    kept: K.
    visible: [B, P], false for padding, which is dropped first; None for no padding.

  Returns:
    [B, K] int32, indices of the patches in random order.

  References:
    [1] Li et al., https://arxiv.org/abs/2212.00794
  """
  order = jax.vmap(lambda key: jax.random.uniform(key, patches))(keys)
  if visible is not None:
    order = jnp.where(visible, order, 1.0)
  return jnp.argsort(order, axis=1)[:, :kept]


def count_kept(patches: int, share: float) -> int:
  """K, the patches that remain of P when a share is dropped; at least one."""
  return max(1, round(patches * (1 - share)))
