"""Supervised contrastive learning, SupCon."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise


def supervised(
  embeddings: jax.Array,
  classes: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The supervised contrastive loss [1]: positives are all other examples of the anchor's class.

      L = meanᵢ( log Σ_{j ≠ i} exp(sᵢⱼ) − mean_{p ∈ P(i)} sᵢₚ ),   s = scale · z zᵀ

  over the anchors i that have a positive: P(i) = { j ≠ i of the class of i }.

  Args:
    embeddings: [B, D] unit vectors. Views of one example are rows of one class.
    classes: [B] integers.
    scale: scalar, the inverse temperature; 10 in [1].
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats; 0 if no anchor has a positive.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Khosla et al., Supervised Contrastive Learning, 2020, equation 2,
      https://arxiv.org/abs/2004.11362.

  See also `nt_xent`, which it equals for two views per class.

  >>> eye = jnp.eye(3)
  >>> twice = jnp.concatenate([eye, eye])
  >>> round(float(supervised(twice, jnp.arange(6) % 3, scale=1.0)), 4)      # log(e + 2 · 2) − 1
  0.9048
  """
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh}
  return jnp.mean(supervised_per_example(embeddings, classes, scale=scale, **options))


def supervised_per_example(
  embeddings: jax.Array,
  classes: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each anchor [B], of which `supervised` is the mean; it takes the same arguments.

  Anchors without a positive have the loss 0. `supervised` is the mean over the others, so their
  losses are multiplied by B / (the number of anchors with a positive).

  >>> losses = supervised_per_example(jnp.eye(4), jnp.array([0, 0, 1, 2]), scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # 4/2 log 3
  [2.1972, 2.1972, 0.0, 0.0]
  """
  if embeddings.ndim != 2 or classes.shape != embeddings.shape[:1]:
    raise ValueError(
      f'embeddings {embeddings.shape} and classes {classes.shape} do not match; give [B, D] and [B]'
    )
  options: dict[str, Any] = {
    'scale': scale,
    'diagonal': False,
    'block_size': block_size,
    'mesh': mesh,
  }
  total, _ = pairwise.logsumexp(embeddings, embeddings, **options)
  (positive, count), _ = pairwise.sum(
    embeddings, embeddings, _positives, positive=classes, **options
  )
  # Without positives the logsumexp may be −inf, which would make the gradient NaN.
  counted = count > 0
  loss = jnp.where(counted, total, 0.0) - positive / jnp.maximum(count, 1)
  return loss * (len(loss) / jnp.maximum(jnp.sum(counted), 1))


def _positives(scores, positive):
  return jnp.where(positive, scores, 0.0), positive
