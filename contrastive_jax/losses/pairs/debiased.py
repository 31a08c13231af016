"""InfoNCE with negatives corrected for false ones, and weighted by their hardness."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def debiased_info_nce(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  prior: float = 0.1,
  beta: float = 0.0,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Symmetric InfoNCE with debiased negatives [1], weighted by their hardness [2].

      L = ½ meanᵢ log( 1 + Nᵢ gᵢ exp(−sᵢᵢ) ) + ½ (the same of the texts)
      gᵢ = max( (hᵢ − τ exp(sᵢᵢ)) / (1 − τ), exp(−scale) )
      hᵢ = Σⱼ exp((1 + β) sᵢⱼ) / Σⱼ exp(β sᵢⱼ)
      s = scale · image textᵀ

  where j are the Nᵢ negatives of i. h is the mean of exp(s) over the negatives, in which β weighs
  hard ones more. A negative is false, another positive, with probability τ: g is the mean over true
  ones, of which exp(−scale) is the lower bound. Gradients flow through the weights.

  [1] and [2] compare two views of an image, and have the negatives of both views in the sum; here
  the negatives of an image are texts, and those of a text are images.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature; 2 in [1] and [2].
    prior: τ, the probability that a negative is false; 1 over the number of classes where these are
      balanced. 0 for no correction.
    beta: β, the hardness; 0 for equal weights, as in [1], 1 in [2]. A value over 0 takes a second
      pass over the pairs.
    same: [B] integers; rows with the same integer are not negatives of each other. Default: all
      differ.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats; pairs without negatives, such as that of B = 1, count as 0.

  Raises:
    ValueError: if the shapes differ, `prior` is outside [0, 1), `beta` is below 0, or as
      `pairwise.logsumexp`.

  References:
    [1] Chuang et al., Debiased Contrastive Learning, 2020, https://arxiv.org/abs/2007.00224.
    [2] Robinson et al., Contrastive Learning with Hard Negative Samples, 2021,
      https://arxiv.org/abs/2010.04592.

  See also `info_nce`, which it equals with `prior` and `beta` of 0, and `hard_negative`.

  >>> eye = jnp.eye(4)
  >>> round(float(debiased_info_nce(eye, eye, scale=1.0, prior=0.0)), 4)      # log(e + 3) − 1
  0.7437
  >>> round(float(debiased_info_nce(eye, eye, scale=1.0)), 4)      # h = 1
  0.6381
  """
  options: dict[str, Any] = {'same': same, 'block_size': block_size, 'mesh': mesh}
  losses = debiased_info_nce_per_example(
    image, text, scale=scale, prior=prior, beta=beta, **options
  )
  return jnp.mean(losses)


def debiased_info_nce_per_example(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  prior: float = 0.1,
  beta: float = 0.0,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each pair [B], of which `debiased_info_nce` is the mean.

  It takes the same arguments.

  >>> eye = jnp.eye(2)
  >>> losses = debiased_info_nce_per_example(eye, eye, scale=1.0, prior=0.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  check_pairs(image=image, text=text)
  if not 0 <= prior < 1:
    raise ValueError(f'prior = {prior}; use a number in [0, 1)')
  if not beta >= 0:
    raise ValueError(f'beta = {beta}; use 0 or more')
  options: dict[str, Any] = {'exclude': same, 'block_size': block_size, 'mesh': mesh}
  totals = pairwise.logsumexp(image, text, scale=(1 + beta) * scale, diagonal=False, **options)
  count = _count_negatives(same, len(image))
  log_count = jnp.log(jnp.maximum(count, 1.0))
  weights = log_count, log_count
  if beta:
    weights = pairwise.logsumexp(image, text, scale=beta * scale, diagonal=False, **options)
  positive = scale * pairwise.paired(image, text)

  def one_way(total, weight):
    # Without negatives both are −inf.
    log_mean = jnp.where(count > 0, total - weight, 0.0)
    log_mean = _log_debiased(log_mean, positive, scale, prior)
    return jnp.where(count > 0, jax.nn.softplus(log_count + log_mean - positive), 0.0)

  return (one_way(totals[0], weights[0]) + one_way(totals[1], weights[1])) / 2


def _log_debiased(log_mean, positive, scale, prior):
  """Log g, given log h."""
  if not prior:
    return log_mean
  log_ratio = math.log(prior) + positive - log_mean  # of what is subtracted from h, to h
  some = log_ratio < 0
  rest = jnp.log(-jnp.expm1(jnp.where(some, log_ratio, -1.0)))
  log_mean = jnp.where(some, log_mean + rest - math.log1p(-prior), -jnp.inf)
  return jnp.maximum(log_mean, -scale)


def _count_negatives(same, size):
  """The number of negatives of each row, float32 [B]."""
  if same is None:
    return jnp.full(size, size - 1, jnp.float32)
  ordered = jnp.sort(same)
  first, last = (jnp.searchsorted(ordered, same, side) for side in ('left', 'right'))
  return (size - (last - first)).astype(jnp.float32)
