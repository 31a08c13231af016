"""The hard contrastive loss of two views: NT-Xent on a fraction of the negatives."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs
from contrastive_jax.losses.pairs.hard_negative import hardest


def hard_contrastive(
  first: jax.Array,
  second: jax.Array,
  *,
  scale: jax.Array | float,
  hard_fraction: float = 0.1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """NT-Xent of each anchor's hardest negatives, the hard contrastive loss of two views [1].

      L = meanₐ log( 1 + Σ_{c ∈ H(a)} exp(sₐ꜀ − sₐₚ₍ₐ₎) ),   s = scale · z zᵀ

  All 2B embeddings z are anchors. H(a) are the negatives over a threshold of the anchor, which
  leaves a fraction of the 2B − 2 views of other examples. A negative at the threshold counts by a
  share, so that the fraction is exact. The selection has no gradient.

  At a low temperature InfoNCE attends to the hardest negatives by itself; the threshold lets a
  tolerant, high one do so. [1] gives no value of the fraction that we know of.

  Args:
    first: [B, D] unit vectors, row i a view of the same example as row i of `second`.
    second: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    hard_fraction: of the negatives, over 0 and at most 1, which is `nt_xent`.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats; 0 for B = 1.

  Raises:
    ValueError: if the shapes differ, the fraction is out of range, or as `pairwise.threshold`.

  References:
    [1] Wang and Liu, Understanding the Behaviour of Contrastive Loss, 2021,
      https://arxiv.org/abs/2012.09740.

  See also `hard_negative`, for pairs.

  >>> eye = jnp.eye(4)
  >>> loss = hard_contrastive(eye, eye, scale=1.0, hard_fraction=0.5)
  >>> round(float(loss), 4)      # log(e + 3) − 1
  0.7437
  """
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh}
  options |= {'scale': scale, 'hard_fraction': hard_fraction}
  return jnp.mean(hard_contrastive_per_example(first, second, **options))


def hard_contrastive_per_example(
  first: jax.Array,
  second: jax.Array,
  *,
  scale: jax.Array | float,
  hard_fraction: float = 0.1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], averaged over its two anchors.

  It takes the same arguments as `hard_contrastive`, which is its mean.

  >>> eye = jnp.eye(2)
  >>> losses = hard_contrastive_per_example(eye, eye, scale=1.0, hard_fraction=0.5)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  check_pairs(first=first, second=second)
  B = len(first)
  views = jnp.stack([first, second], 1).reshape(2 * B, -1)
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh, 'diagonal': False}
  options |= {'exclude': jnp.repeat(jnp.arange(B), 2), 'scale': scale}
  negatives = hardest(views, views, hard_fraction, **options).reshape(B, 2)
  positive = scale * pairwise.paired(first, second)
  return jnp.mean(jax.nn.softplus(negatives - positive[:, None]), axis=1)
