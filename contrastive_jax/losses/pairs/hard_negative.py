"""InfoNCE against the hardest negatives."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs

_TINY, _NEVER = 1e-30, -1e30


def hard_negative(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  k: int = 64,
  hard_fraction: float | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Symmetric InfoNCE over each anchor's k hardest negatives, the hard contrastive loss [1].

      L = ½ meanᵢ log( 1 + Σ_{j ∈ H(i)} exp(sᵢⱼ − sᵢᵢ) ) + ½ (the same of the texts)
      s = scale · image textᵀ

  where H(i) are the k texts j ≠ i with the greatest sᵢⱼ, or a fraction of the texts j ≠ i, those
  over a threshold of the anchor, as in [1]. Of the two, the fraction takes memory linear in B.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    k: the number of negatives per anchor; all of them where there are fewer.
    hard_fraction: of the negatives, over 0 and at most 1, in place of k; a negative at the
      threshold counts by a share, so that the fraction is exact.
    same: [B] integers; rows with the same integer are not negatives of each other. Default: all
      differ.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, the fraction is out of range, or as `pairwise.top_k`.

  References:
    [1] Wang and Liu, Understanding the Behaviour of Contrastive Loss, 2021,
      https://arxiv.org/abs/2012.09740.

  See also `info_nce`, which it equals for k ≥ B − 1, and `hard_contrastive`, for two views.

  >>> eye = jnp.eye(4)
  >>> round(float(hard_negative(eye, eye, scale=1.0, k=1)), 4)      # log(e + 1) − 1
  0.3133
  """
  options: dict[str, Any] = {'k': k, 'same': same, 'block_size': block_size, 'mesh': mesh}
  options['hard_fraction'] = hard_fraction
  return jnp.mean(hard_negative_per_example(image, text, scale=scale, **options))


def hard_negative_per_example(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  k: int = 64,
  hard_fraction: float | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each pair [B], of which `hard_negative` is the mean; it takes the same arguments.

  >>> eye = jnp.eye(2)
  >>> losses = hard_negative_per_example(eye, eye, scale=1.0, k=1)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  check_pairs(image=image, text=text)
  positive = scale * pairwise.paired(image, text)
  options: dict[str, Any] = {
    'scale': scale,
    'exclude': same,
    'diagonal': False,
    'block_size': block_size,
    'mesh': mesh,
  }

  def one_way(anchors, others):
    if hard_fraction is not None:
      total = hardest(anchors, others, hard_fraction, **options)
    else:
      scores, _ = pairwise.top_k(anchors, others, min(k, len(image)), **options)
      total = jax.nn.logsumexp(scores, axis=1)
    return jax.nn.softplus(total - positive)

  return (one_way(image, text) + one_way(text, image)) / 2


def hardest(anchors: jax.Array, others: jax.Array, hard_fraction: float, **options) -> jax.Array:
  """Log Σ exp over the highest scores of each row, a fraction of those that count.

  Args:
    anchors: [B, D] vectors, one per row.
    others: [B', D] vectors.
    hard_fraction: over 0 and at most 1.
    **options: of `pairwise.threshold`.

  Returns:
    [B], float32; −inf where no pair counts.

  Raises:
    ValueError: if the fraction is out of range, or as `pairwise.threshold`.
  """
  if not 0 < hard_fraction <= 1:
    raise ValueError(f'hard_fraction = {hard_fraction}; use a number over 0 and at most 1')
  selected = pairwise.threshold(anchors, others, fraction=hard_fraction, **options)
  return pairwise.logsumexp(anchors, others, _if_over, rows=selected, **options)[0]


def _if_over(scores, rows, columns):
  """The scores over the thresholds of their rows, those at these by their share, and no others."""
  threshold, share = (a[:, None] for a in rows)
  share = jnp.where(scores > threshold, 1.0, share * (scores == threshold))
  # Finite, and far below any score, where a pair has no share.
  return scores + jnp.where(share > 0, jnp.log(jnp.maximum(share, _TINY)), _NEVER)
