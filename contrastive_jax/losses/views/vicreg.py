"""The loss of VICReg: invariance, variance and covariance of two views."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs
from contrastive_jax.losses.views.features import by_feature, wide


def vicreg(
  first: jax.Array,
  second: jax.Array,
  *,
  invariance: float = 25.0,
  variance: float = 25.0,
  covariance: float = 1.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Views agree, and the features of each vary and do not correlate [1].

      L = λ mean (x − y)² + μ (v(x) + v(y)) / 2 + ν (c(x) + c(y))
      v(x) = meanᵢ max(0, 1 − √(Cᵢᵢ + 10⁻⁴)),   c(x) = Σ_{i ≠ j} Cᵢⱼ² / D

  C is the covariance of the features of a view over the batch, [D, D], with the divisor B − 1. It
  is reduced in blocks, as in `barlow_twins`: memory is linear in B and in D. The first mean runs
  over B and D, and v is halved, as in the authors' code (facebookresearch/vicreg, main_vicreg.py);
  the formula of the paper sums the first over D, and v over the views.

  Args:
    first: [B, D] vectors of any length.
    second: [B, D] vectors of any length, row i for row i of `first`.
    invariance: λ, at least 0.
    variance: μ, at least 0.
    covariance: ν, at least 0.
    block_size: as in `pairwise.logsumexp`, in features.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar; 0 for equal views whose features have a variance of 1 or more and no correlation.

  Raises:
    ValueError: if the shapes differ, B is 1, or a weight is negative.

  References:
    [1] Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
      Learning, 2022, https://arxiv.org/abs/2105.04906.

  See also `barlow_twins`, which correlates the views with each other.

  >>> x = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
  >>> float(vicreg(x, x))
  0.0
  >>> round(float(vicreg(0 * x, 0 * x)), 2)      # a collapse: 25 · (1 − 0.01)
  24.75
  """
  check_pairs(first=first, second=second)
  if len(first) < 2:
    raise ValueError(f'a batch of {len(first)} {first.shape} has no covariance; give 2 or more')
  weights = {'invariance': invariance, 'variance': variance, 'covariance': covariance}
  for name, weight in weights.items():
    if not weight >= 0:
      raise ValueError(f'{name} = {weight}; use a number of 0 or more')
  first, second = wide(first), wide(second)
  hinges, squares = zip(
    *(_regularizers(view, block_size=block_size, mesh=mesh) for view in (first, second)),
    strict=True,
  )
  apart = jnp.mean(jnp.square(first - second))
  return invariance * apart + variance * sum(hinges) / 2 + covariance * sum(squares)


def _regularizers(vectors: jax.Array, **options) -> tuple[jax.Array, jax.Array]:
  """The hinge v and the squares c of vectors [B, D]."""
  B, D = vectors.shape
  centered = vectors - jnp.mean(vectors, 0)
  variances = jnp.sum(jnp.square(centered), 0) / (B - 1)
  hinge = jnp.mean(jax.nn.relu(1 - jnp.sqrt(variances + 1e-4)))
  features = by_feature(centered, options['mesh'])
  squares, _ = pairwise.sum(
    features, features, jnp.square, scale=1 / (B - 1), diagonal=False, **options
  )
  return hinge, jnp.sum(squares) / D
