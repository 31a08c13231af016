"""AMCL: contrast with a temperature per pair, which a network predicts, in place of a softmax."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs
from contrastive_jax.losses.pairwise.arguments import Integers
from contrastive_jax.losses.views.features import by_feature, wide

Bounds = tuple[float, float]
# Shares of the temperatures of pairs near each bound.
SHARES = ('positive_at_min', 'positive_at_max', 'negative_at_min', 'negative_at_max')


class Vectors(NamedTuple):
  """Vectors, and what their temperatures are made of.

  Attributes:
    z: [N, D] unit vectors.
    phi: [N, E] the output of the network of temperatures for each of them.
  """

  z: jax.Array
  phi: jax.Array


class Terms(NamedTuple):
  """A loss by anchor, and its temperatures.

  Attributes:
    loss: [N].
    positive: [N] temperature of the pair of an anchor and its positive.
    negative: [N, k] temperatures of those of an anchor and its negatives.
  """

  loss: jax.Array
  positive: jax.Array
  negative: jax.Array


def temperature(products: jax.Array, bounds: Bounds) -> jax.Array:
  """Temperatures of pairs by their products ⟨φ(x), φ(y)⟩, low where they are similar.

      τ = τ_min + (τ_max − τ_min) σ(−⟨φ(x), φ(y)⟩)

  Args:
    products: of any shape.
    bounds: τ_min and τ_max.

  >>> temperature(jnp.array([-100.0, 0.0, 100.0]), (0.5, 1.5))
  Array([1.5, 1. , 0.5], dtype=float32)
  """
  low, high = bounds
  return low + (high - low) * jax.nn.sigmoid(-products)


def omega(tau: jax.Array, width: int) -> jax.Array:
  """What regularizes temperatures, the log-likelihood of a Gaussian with variance τ.

      Ω(τ) = (width / 2) log τ + 1 / τ

  It is minimal at τ = 2 / width.
  """
  return width / 2 * jnp.log(tau) + 1 / tau


def at_bounds(tau: jax.Array, bounds: Bounds) -> tuple[jax.Array, jax.Array]:
  """Whether temperatures are within a hundredth of the range of each bound, the lower first."""
  low, high = bounds
  margin = (high - low) / 100
  return tau < low + margin, tau > high - margin


def adaptive_contrast(
  anchors: Vectors,
  positives: Vectors,
  candidates: Vectors,
  *,
  k: int,
  beta: float,
  bounds: Bounds,
  exclude: Integers | None = None,
  diagonal: bool = True,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> Terms:
  """The contrast of AMCL [1] for one projection, in its practical form.

      L_i = −s⁺ / τ⁺ + (1 / k) Σ_{n ∈ H(i)} s_n / τ_n + β Ω(τ⁺) − β Σ_{n ∈ H(i)} (log τ_n + 1 / τ_n)

  s are the products of the anchor with its positive and with the candidates, of which H(i) are the
  k greatest; τ is `temperature`, and Ω `omega`. It is no softmax: the maximum over the negatives of
  a maximum likelihood is replaced by the mean of the hardest, and the regularizer of theirs lacks
  the factor D / 2. In τ there is no minimum: τ⁺ falls to its bound wherever s⁺ > β, and τ_n to one
  of its bounds, the lower one where s_n < k β.

  Memory is in N k E.

  Args:
    anchors: N vectors.
    positives: N vectors, each the positive of an anchor.
    candidates: M vectors, the negatives.
    k: the number of negatives per anchor, at most the number that count for each.
    beta: β, the weight of the regularizers.
    bounds: τ_min and τ_max.
    exclude: as in `pairwise.top_k`.
    diagonal: as in `pairwise.top_k`.
    block_size: as in `pairwise.top_k`.
    mesh: as in `pairwise.top_k`.

  Raises:
    ValueError: as `pairwise.top_k`.

  References:
    [1] Wang et al., Adaptive Multi-head Contrastive Learning, 2023,
      https://arxiv.org/abs/2310.05615; as in LeiWangR/cl: amcl/losses.py.
  """
  options: dict[str, Any] = {'exclude': exclude, 'diagonal': diagonal}
  similarities, columns = pairwise.top_k(
    anchors.z, candidates.z, k, block_size=block_size, mesh=mesh, **options
  )
  own = temperature(pairwise.paired(anchors.phi, positives.phi), bounds)
  tau = temperature(_products(anchors.phi, candidates.phi, columns), bounds)
  positive = -pairwise.paired(anchors.z, positives.z) / own
  positive += beta * omega(own, anchors.z.shape[1])
  negative = jnp.mean(similarities / tau, 1) - beta * jnp.sum(omega(tau, 2), 1)
  return Terms(positive + negative, own, tau)


@jax.checkpoint
def _products(phi: jax.Array, of_candidates: jax.Array, columns: jax.Array) -> jax.Array:
  """Products [N, k] of [N, E] and the rows of [M, E]; [N, k, E] is not kept for the gradient."""
  precision = jax.lax.Precision.HIGHEST
  return jnp.einsum('ne,nke->nk', phi, of_candidates[columns], precision=precision)


def adaptive_barlow_twins(
  first: jax.Array,
  second: jax.Array,
  phi: Callable[[jax.Array], jax.Array],
  *,
  off_diagonal: float,
  beta: float,
  bounds: Bounds,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of Barlow Twins with a temperature per pair of features, AMCL's form of it [1].

      L = Σᵢ (1 − Cᵢᵢ)² / τᵢᵢ + λ Σ_{i ≠ j} Cᵢⱼ² / τᵢⱼ + β Σᵢ Ω(τᵢᵢ) − β Σ_{i ≠ j} Ω(τᵢⱼ)

  C = xᵀ y / B is the correlation of the features of two views. τ is `temperature`, of a network
  that maps what a feature is in all B examples, and Ω `omega` with the number of features as width.
  C and τ are reduced in blocks, as in `losses.barlow_twins`.

  The authors' code has (1 − Cᵢᵢ / τᵢᵢ)² on the diagonal; this is the form of the paper's table.

  Args:
    first: [B, D] features, each with mean 0 and variance 1 over the batch.
    second: [B, D] features, row i for row i of `first`.
    phi: φ, [D', B] -> [D', E] by row.
    off_diagonal: λ.
    beta: β.
    bounds: τ_min and τ_max.
    block_size: as in `pairwise.logsumexp`, in features.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    The loss, a scalar; and shares of temperatures near their bounds by their names in `SHARES`.

  Raises:
    ValueError: if the shapes differ.

  References:
    [1] Wang et al., Adaptive Multi-head Contrastive Learning, 2023,
      https://arxiv.org/abs/2310.05615.
  """
  check_pairs(first=first, second=second)
  B, D = first.shape
  first, second = (by_feature(wide(vectors), mesh) for vectors in (first, second))
  x, y = (first / B, phi(first)), (second, phi(second))
  correlations, of_phi = (pairwise.paired(*both)[:D] for both in zip(x, y, strict=True))
  tau = temperature(of_phi, bounds)
  positive = jnp.square(1 - correlations) / tau + beta * omega(tau, D)
  # What pads the features has a φ, too.
  real = (jnp.arange(len(first)) < D).astype(tau.dtype)
  term = _OffDiagonal(off_diagonal, beta, bounds, D)
  options: dict[str, Any] = {'diagonal': False, 'block_size': block_size, 'mesh': mesh}
  sums, _ = pairwise.sum(x, y, term, rows=real, columns=real, **options)
  negative, *counts = map(jnp.sum, sums)
  shares = [*map(jnp.mean, at_bounds(tau, bounds)), *(n / max(D * (D - 1), 1) for n in counts)]
  return jnp.sum(positive) + negative, dict(zip(SHARES, shares, strict=True))


@dataclasses.dataclass(frozen=True)
class _OffDiagonal:
  """The term of a pair of different features, and whether its temperature is at a bound."""

  off_diagonal: float
  beta: float
  bounds: Bounds
  width: int

  def __call__(self, products, rows, columns):
    """Three arrays [b, n], of C and the products of φ."""
    correlations, of_phi = products
    tau = temperature(of_phi, self.bounds)
    loss = self.off_diagonal * jnp.square(correlations) / tau - self.beta * omega(tau, self.width)
    real = rows[:, None] * columns
    return tuple(real * values for values in (loss, *at_bounds(tau, self.bounds)))
