"""Rotary position embeddings (RoPE) of a grid of patches.

Pairs of channels of queries and keys are rotated by angles that are proportional to the position,
half of the pairs by the row and half by the column. A score then depends only on the difference of
two positions.

References:
  Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
  Fang et al., EVA-02: A Visual Representation for Neon Genesis, 2023.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Values of config.model.image.rope: which axis the first half of a head's channels follows.
ROPES = ('yx', 'xy')
_TEMPERATURE = 10_000.0


def rotation(
  grid: int,
  width: int,
  order: str = 'yx',
  reference: int | None = None,
  offset: float = 0.0,
  prefix: int = 0,
) -> np.ndarray:
  """Returns sines and cosines [2, prefix + P, E] of the angles of P = grid² patches, for `rotate`.

  Args:
    grid: number of patches per side.
    width: E, width of a head.
    order: 'yx', as in EVA02, or 'xy', as in the Perception Encoder.
    reference: grid of the pretraining, to whose extent positions are scaled; None for no scaling.
    offset: position of the first patch.
    prefix: number of tokens before the patches that are not rotated, such as a class token.

  Raises:
    ValueError: if E is not a multiple of 4.
  """
  if width % 4:
    raise ValueError(
      f'image.rope = {order!r} needs heads whose width is a multiple of 4, and it is {width}'
    )
  places = np.arange(grid, dtype=np.float32) + np.float32(offset)
  if reference is not None:
    places = places / np.float32(grid) * np.float32(reference)
  bands = 1 / _TEMPERATURE ** (np.arange(width // 4, dtype=np.float32) / (width // 4))
  angles = places[:, None] * bands.astype(np.float32)
  rows = np.repeat(angles, grid, axis=0)
  columns = np.tile(angles, (grid, 1))
  halves = (rows, columns) if order == 'yx' else (columns, rows)
  # Both channels of a pair have the same angle.
  angles = np.repeat(np.concatenate(halves, axis=1), 2, axis=1)
  angles = np.pad(angles, ((prefix, 0), (0, 0)))
  return np.stack([np.sin(angles), np.cos(angles)])


def rotate(x: jax.Array, rotation) -> jax.Array:
  """Rotates pairs of channels of x [B, L, H, E] by a rotation [2, L, E] or [2, B, L, E]."""
  sine, cosine = rotation[0][..., None, :], rotation[1][..., None, :]
  pairs = x.reshape(*x.shape[:-1], -1, 2)
  turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)
  return (x * cosine + turned * sine).astype(x.dtype)
