"""NT-Xent between two views, the loss of SimCLR."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise


def nt_xent(
  first: jax.Array,
  second: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The normalized, temperature-scaled cross entropy of two views [1].

  Every one of the 2B embeddings z is an anchor: the other view of its example is its positive,
  the 2B − 2 views of other examples are its negatives.

      L = meanₐ( log Σ_{c ≠ a} exp(sₐ꜀) − sₐₚ₍ₐ₎ ),   s = scale · z zᵀ

  Args:
    first: [B, D] unit vectors, row i a view of the same example as row i of `second`.
    second: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the batch is sharded, by its axes named 'data' and 'fsdp' (others hold
      copies); None for one device.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ.

  References:
    [1] Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020.

  >>> eye = jnp.eye(4)
  >>> round(float(nt_xent(eye, eye, scale=1.0)), 4)      # log(e + 2 · 3) − 1
  1.1654
  """
  rows, columns = two_views(
    first, second, scale=scale, diagonal=True, block_size=block_size, mesh=mesh
  )
  return jnp.mean((rows + columns) / 2 - scale * pairwise.paired(first, second))


def two_views(
  first: jax.Array, second: jax.Array, *, scale: jax.Array | float, diagonal: bool, **options
) -> tuple[jax.Array, jax.Array]:
  """Log Σ exp over each anchor's pairs, in both views.

  Args:
    first: [B, D] vectors, row i a view of the same example as row i of `second`.
    second: [B, D] vectors.
    scale: scalar, the inverse temperature.
    diagonal: whether the positive counts.
    **options: `block_size` and `mesh`, as in `pairwise.logsumexp`.

  Returns:
    [B] for the anchors in `first`, and [B] for those in `second`.

  Raises:
    ValueError: if the shapes differ.
  """
  if first.shape != second.shape:
    raise ValueError(f'first {first.shape} and second {second.shape} differ; give two [B, D]')
  # Three B × B matrices of pairs: the fourth is the first one's transpose.
  rows, columns = pairwise.logsumexp(first, second, scale=scale, diagonal=diagonal, **options)
  within_first, _ = pairwise.logsumexp(first, first, scale=scale, diagonal=False, **options)
  within_second, _ = pairwise.logsumexp(second, second, scale=scale, diagonal=False, **options)
  return jnp.logaddexp(rows, within_first), jnp.logaddexp(columns, within_second)
