"""SupReMix: supervised contrastive regression with mixtures as hard negatives and positives."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.labels.mixtures import mixtures


def supremix(
  embeddings: jax.Array,
  numbers: jax.Array,
  shares: jax.Array | None = None,
  *,
  scale: jax.Array | float,
  window: int = 5,
  weighted: bool = True,
  unit: float = 1.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """SupCon for regression, with mixtures of embeddings as further negatives and positives [1].

      L = meanᵢ( log Σ_c wᵢ(c) exp(sᵢ(c)) − mean_{p ∈ P(i)} sᵢ(p) ),   sᵢ(c) = scale · zᵢ · c

  over the anchors i that have a positive. The candidates c of an anchor with the number yᵢ are

  - all other embeddings zⱼ, which are positive where yⱼ = yᵢ;
  - negative mixtures λᵢ zᵢ + (1 − λᵢ) zₖ of the number λᵢ yᵢ + (1 − λᵢ) yₖ, for all yₖ ≠ yᵢ;
  - positive mixtures a zⱼ + (1 − a) zₖ, a = (yₖ − yᵢ) / (yₖ − yⱼ), whose number is yᵢ, for all
    pairs of yᵢ − window ≤ yⱼ < yᵢ < yₖ ≤ yᵢ + window.

  The weight of a candidate is its distance in numbers from the anchor, plus 1. No gradient flows
  through mixtures, which keep their length.

  All pairs of the positive mixtures count, of which there are O(B²) per anchor. Numbers are whole,
  so that a pair at the distances p and q has a = q / (p + q), and sums over pairs factorize:

      Σⱼₖ exp(sᵢ(m)) = Σ_{p, q ≤ window} B_pq A_pq
      B_pq = Σ_{yⱼ = yᵢ − p} exp(a sᵢⱼ),   A_pq = Σ_{yₖ = yᵢ + q} exp((1 − a) sᵢₖ)

  One streamed pass gives all B_pq and A_pq, in memory linear in the batch.

  Args:
    embeddings: [B, D] unit vectors. Views of one example are rows of one number.
    numbers: [B], which are divided by `unit` and rounded; rounding is ours.
    shares: [B] numbers in [0, 1], λ: an anchor's own share in its negative mixtures. None for no
      negative mixtures.
    scale: scalar, the inverse temperature; 1 / 0.3 in [1]. Exponentials of mixtures are relative
      to exp(scale), and those of opposite vectors underflow to 0 at scales over 40.
    window: of the positive mixtures, in units; 0 for none.
    weighted: whether distances weigh; otherwise all weights are 1.
    unit: of `numbers`, over 0.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats; 0 if no anchor has a positive.

  Raises:
    ValueError: if the shapes do not match, or `window` or `unit` is out of range.

  References:
    [1] Wu et al., Mixup Your Own Pairs, 2023, https://arxiv.org/abs/2309.16633.

  See also `supervised`, which it equals without mixtures and weights.

  >>> embeddings = jnp.repeat(jnp.eye(3), 2, axis=0)
  >>> numbers = jnp.repeat(jnp.arange(3), 2)
  >>> options = {'scale': 1.0, 'window': 0}
  >>> round(float(supremix(embeddings, numbers, weighted=False, **options)), 4)  # log(e + 4) − 1
  0.9048
  """
  options: dict[str, Any] = {'scale': scale, 'window': window, 'weighted': weighted, 'unit': unit}
  options |= {'block_size': block_size, 'mesh': mesh}
  return jnp.mean(supremix_per_example(embeddings, numbers, shares, **options))


def supremix_per_example(
  embeddings: jax.Array,
  numbers: jax.Array,
  shares: jax.Array | None = None,
  *,
  scale: jax.Array | float,
  window: int = 5,
  weighted: bool = True,
  unit: float = 1.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each anchor [B], of which `supremix` is the mean; it takes the same arguments.

  Anchors without a positive have the loss 0. `supremix` is the mean over the others, so their
  losses are multiplied by B / (the number of anchors with a positive).

  >>> embeddings = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
  >>> options = {'scale': 1.0, 'window': 1, 'weighted': False}
  >>> losses = supremix_per_example(embeddings, jnp.array([1, 2, 3]), **options)
  >>> [round(float(loss), 4) for loss in losses]  # 3 log(2 + 1): the mixture of 1 and 3 is 0
  [0.0, 3.2958, 0.0]
  """
  _check(embeddings, numbers, shares, window, unit)
  steps = jnp.round(numbers / unit).astype(jnp.int32)
  levels = steps if weighted else jnp.zeros_like(steps)
  options: dict[str, Any] = {'scale': scale, 'block_size': block_size, 'mesh': mesh}
  pairs = embeddings, embeddings
  total, _ = pairwise.logsumexp(
    *pairs, _weigh, rows=levels, columns=levels, diagonal=False, **options
  )
  (positive, count), _ = pairwise.sum(*pairs, _positives, positive=steps, diagonal=False, **options)
  logits: list[jax.Array] = []
  if shares is not None or window:
    logits, mixed, pairs_count = mixtures(embeddings, steps, levels, shares, window, **options)
    positive, count = positive + mixed, count + pairs_count
  # Without candidates the logsumexp may be −inf, which would make the gradient NaN.
  counted = count > 0
  total = jax.nn.logsumexp(jnp.stack([jnp.where(counted, total, 0.0), *logits]), axis=0)
  loss = jnp.where(counted, total - positive / jnp.maximum(count, 1), 0.0)
  return loss * (len(loss) / jnp.maximum(jnp.sum(counted), 1))


def _weigh(scores, rows, columns):
  return scores + jnp.log1p(jnp.abs(rows[:, None] - columns))


def _positives(scores, positive):
  return jnp.where(positive, scores, 0.0), positive


def _check(embeddings, numbers, shares, window, unit):
  shapes = {numbers.shape} | ({shares.shape} if shares is not None else set())
  if embeddings.ndim != 2 or shapes != {embeddings.shape[:1]}:
    given = '' if shares is None else f' and shares {shares.shape}'
    raise ValueError(
      f'embeddings {embeddings.shape}, numbers {numbers.shape}{given} do not match; give [B, D] '
      'and [B]'
    )
  if window < 0 or not unit > 0:
    raise ValueError(
      f'window = {window} and unit = {unit}; use a whole number of 0 or more, and one over 0'
    )
