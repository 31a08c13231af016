"""Supervised contrastive learning, SupCon."""

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
  """The supervised contrastive loss [1]: all others of an anchor's class are its positives.

      L = meanᵢ( log Σ_{j ≠ i} exp(sᵢⱼ) − mean_{p ∈ P(i)} sᵢₚ ),   s = scale · z zᵀ

  over the anchors i that have a positive: P(i) = { j ≠ i of the class of i }.

  Args:
    embeddings: [B, D] unit vectors. Views of one example are rows of one class.
    classes: [B] integers.
    scale: scalar, the inverse temperature; the paper's is 10.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the batch is sharded, by its axes named 'data' and 'fsdp' (others hold
      copies); None for one device.

  Returns:
    Scalar, in nats; 0 if no anchor has a positive.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Khosla et al., Supervised Contrastive Learning, 2020, equation 2.

  >>> eye = jnp.eye(3)
  >>> twice = jnp.concatenate([eye, eye])
  >>> round(float(supervised(twice, jnp.arange(6) % 3, scale=1.0)), 4)      # log(e + 2 · 2) − 1
  0.9048
  """
  options = {'scale': scale, 'diagonal': False, 'block_size': block_size, 'mesh': mesh}
  total, _ = pairwise.logsumexp(embeddings, embeddings, **options)
  (positive, count), _ = pairwise.sum(
    embeddings, embeddings, _positives, positive=classes, **options
  )
  # Of an anchor without positives, the total may be −inf; then it must not be seen.
  counted = count > 0
  loss = jnp.where(counted, total, 0.0) - positive / jnp.maximum(count, 1)
  return jnp.sum(loss) / jnp.maximum(jnp.sum(counted), 1)


def _positives(scores, positive):
  return jnp.where(positive, scores, 0.0), positive
