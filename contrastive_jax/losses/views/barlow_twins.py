"""The loss of Barlow Twins: features of two views correlate with themselves alone."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs
from contrastive_jax.losses.views.features import by_feature, wide


def barlow_twins(
  first: jax.Array,
  second: jax.Array,
  *,
  off_diagonal: float = 5e-3,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The distance of the cross-correlation of two views' features from the identity [1].

      L = Σᵢ (Cᵢᵢ − 1)² + λ Σ_{i ≠ j} Cᵢⱼ²,   C = xᵀ y / B

  x and y are the vectors with each feature standardized over the batch, to mean 0 and variance 1.
  C, which is [D, D], is reduced in blocks, as the scores of pairs are elsewhere: over a mesh the
  devices share the features of the whole batch. Memory is linear in B and in D.

  Args:
    first: [B, D] vectors of any length.
    second: [B, D] vectors of any length, row i for row i of `first`.
    off_diagonal: λ, at least 0.
    block_size: as in `pairwise.logsumexp`, in features.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar; 0 where C is the identity.

  Raises:
    ValueError: if the shapes differ, B is 1, or λ is negative.

  References:
    [1] Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021,
      https://arxiv.org/abs/2103.03230.

  >>> x = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
  >>> round(float(barlow_twins(x, 5 * x + 2)), 4)
  0.0
  >>> round(float(barlow_twins(x, -x)), 3)      # (−1 − 1)² per feature
  8.0
  """
  check_pairs(first=first, second=second)
  B, D = first.shape
  if B < 2:
    raise ValueError(f'a batch of {B} {first.shape} has no correlations; give 2 or more')
  if not off_diagonal >= 0:
    raise ValueError(f'off_diagonal = {off_diagonal}; use a number of 0 or more')
  x, y = (by_feature(_standardized(vectors), mesh) for vectors in (first, second))
  diagonal = pairwise.paired(x, y)[:D] / B
  squares, _ = pairwise.sum(x, y, jnp.square, scale=1 / B, block_size=block_size, mesh=mesh)
  others = jnp.sum(squares) - jnp.sum(jnp.square(diagonal))
  return jnp.sum(jnp.square(diagonal - 1)) + off_diagonal * others


def _standardized(vectors: jax.Array) -> jax.Array:
  """Features with mean 0 and variance 1 over the batch, in float32; constant ones are 0."""
  vectors = wide(vectors)
  centered = vectors - jnp.mean(vectors, 0)
  return centered * jax.lax.rsqrt(jnp.mean(jnp.square(centered), 0) + 1e-5)
