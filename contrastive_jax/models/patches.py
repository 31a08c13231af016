"""NaFlex in the image tower: images as patches of a grid of their own, with padding.

A batch is a pair of patches [B, L, p, p, 3], row by row, and a grid [B, 2], the rows and columns of
patches, which determines the positions of the patches and which of them are padding.

References:
  Beyer et al., FlexiViT: One Model for All Patch Sizes, 2023.
  Tschannen et al., SigLIP 2: Multilingual Vision-Language Encoders, 2025.
"""

import jax
import jax.numpy as jnp
import numpy as np


def _triangle(x, xp):
  return xp.maximum(1 - x, 0)


def _cubic(x, xp):
  """Keys' cubic with a = −1/2: PIL's, and PyTorch's where it antialiases."""
  inner = (1.5 * x - 2.5) * x * x + 1
  outer = ((2.5 - 0.5 * x) * x - 4) * x + 2
  return xp.where(x < 1, inner, xp.where(x < 2, outer, 0))


# Values of config.model.image.interpolation, and their filters.
INTERPOLATIONS = {'bilinear': _triangle, 'bicubic': _cubic}


def visible(grid: jax.Array, length: int) -> jax.Array:
  """Returns which of L patches are none of the padding, [B, L]."""
  return jnp.arange(length) < jnp.prod(_at_least_one(grid), axis=1)[:, None]


def positions(table: jax.Array, grid: jax.Array, length: int, interpolation: str) -> jax.Array:
  """Returns position embeddings resized to the grid of each image, antialiased.

  Args:
    table: [P, D] embeddings of a square grid.
    grid: [B, 2] rows and columns.
    length: L; positions from rows · columns on are arbitrary, but finite.
    interpolation: a key of `INTERPOLATIONS`.

  Returns:
    [B, L, D], float32.
  """
  side = round(len(table) ** 0.5)
  rows, columns = (sides[:, None] for sides in _at_least_one(grid).T)
  index = jnp.arange(length)
  lines = jnp.minimum(index // columns, rows - 1), index % columns
  vertical, horizontal = (
    resize_weights(at.astype(jnp.float32), size.astype(jnp.float32), side, interpolation)
    for at, size in zip(lines, (rows, columns), strict=True)
  )
  weights = vertical[..., :, None] * horizontal[..., None, :]
  # In float32, as the gradient of the table is a sum over the batch.
  flat = weights.reshape(*weights.shape[:2], side * side)
  return jnp.matmul(flat, table, precision='highest')


def resize_weights(places, size, old: int, interpolation: str):
  """Returns the weights of the pixels of a line in pixels of the resized line, antialiased.

  Args:
    places: [...] indices in the resized line.
    size: length of the resized line, an array that broadcasts with `places`.
    old: N, length of the line.
    interpolation: a key of `INTERPOLATIONS`.

  Returns:
    [..., N], which sum to 1; by NumPy for NumPy's arrays.
  """
  xp = np if isinstance(places, np.ndarray) else jnp
  shrink = (old / size)[..., None]
  distance = xp.arange(old) + 0.5 - (places[..., None] + 0.5) * shrink
  weights = INTERPOLATIONS[interpolation](xp.abs(distance) / xp.maximum(shrink, 1), xp)
  return weights / weights.sum(-1, keepdims=True)


def resize_kernel(kernel: jax.Array, patch: int, interpolation: str) -> jax.Array:
  """Resizes the kernel of a patch embedding by FlexiViT's pseudo-inverse.

  The embedding of an enlarged patch equals that of the patch before.

  Args:
    kernel: [p, p, 3, D].
    patch: q, the new side.
    interpolation: of the patches, a key of `INTERPOLATIONS`.

  Returns:
    [q, q, 3, D].
  """
  old = kernel.shape[0]
  size = np.full(patch, patch, np.float64)
  resize = resize_weights(np.arange(patch, dtype=np.float64), size, old, interpolation)
  # The pseudo-inverse of a Kronecker product is that of its factors.
  inverse = np.linalg.pinv(resize.T).astype(np.float32)
  return jnp.einsum('qi,rj,ijcd->qrcd', inverse, inverse, kernel, precision='highest')


def _at_least_one(grid):
  """A grid without zeros, which rows that fill up a batch have."""
  return jnp.maximum(grid, 1)
