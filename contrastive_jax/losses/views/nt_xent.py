"""NT-Xent between two views, the loss of SimCLR."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def nt_xent(
  first: jax.Array,
  second: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The normalized, temperature-scaled cross entropy of two views [1].

      L = meanₐ( log Σ_{c ≠ a} exp(sₐ꜀) − sₐₚ₍ₐ₎ ),   s = scale · z zᵀ

  All 2B embeddings z are anchors. The positive p(a) is the other view of the same example; the
  negatives are the 2B − 2 views of other examples.

  Args:
    first: [B, D] unit vectors, row i a view of the same example as row i of `second`.
    second: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, or as `pairwise.logsumexp`.

  References:
    [1] Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020,
      https://arxiv.org/abs/2002.05709.

  See also `decoupled`, whose denominator leaves out the positive.

  >>> eye = jnp.eye(4)
  >>> round(float(nt_xent(eye, eye, scale=1.0)), 4)      # log(e + 2 · 3) − 1
  1.1654
  """
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh}
  return jnp.mean(nt_xent_per_example(first, second, scale=scale, **options))


def nt_xent_per_example(
  first: jax.Array,
  second: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], averaged over its two anchors; `nt_xent` is its mean.

  It takes the same arguments.

  >>> eye = jnp.eye(4)
  >>> losses = nt_xent_per_example(eye, eye, scale=1.0)
  >>> [round(float(loss), 2) for loss in losses]      # log(e + 2 · 3) − 1
  [1.17, 1.17, 1.17, 1.17]
  """
  rows, columns = two_views(
    first, second, scale=scale, diagonal=True, block_size=block_size, mesh=mesh
  )
  return (rows + columns) / 2 - scale * pairwise.paired(first, second)


def two_views(
  first: jax.Array, second: jax.Array, *, scale: jax.Array | float, diagonal: bool, **options
) -> tuple[jax.Array, jax.Array]:
  """Log Σ exp over the pairs of each anchor, with anchors in both views.

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
  check_pairs(first=first, second=second)
  # Three B × B matrices of scores: the fourth is the transpose of the first.
  rows, columns = pairwise.logsumexp(first, second, scale=scale, diagonal=diagonal, **options)
  within_first, _ = pairwise.logsumexp(first, first, scale=scale, diagonal=False, **options)
  within_second, _ = pairwise.logsumexp(second, second, scale=scale, diagonal=False, **options)
  return jnp.logaddexp(rows, within_first), jnp.logaddexp(columns, within_second)
