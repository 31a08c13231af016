"""InfoNCE against the hardest negatives."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def hard_negative(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  k: int = 64,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Symmetric InfoNCE over each anchor's k hardest negatives, the hard contrastive loss [1].

      L = ½ meanᵢ log( 1 + Σ_{j ∈ H(i)} exp(sᵢⱼ − sᵢᵢ) ) + ½ (the same of the texts)
      s = scale · image textᵀ

  where H(i) are the k texts j ≠ i with the greatest sᵢⱼ.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    k: the number of negatives per anchor; all of them where there are fewer.
    same: [B] integers; rows with the same integer are not negatives of each other. Default: all
      differ.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, or as `pairwise.top_k`.

  References:
    [1] Wang and Liu, Understanding the Behaviour of Contrastive Loss, 2021,
      https://arxiv.org/abs/2012.09740.

  See also `info_nce`, which it equals for k ≥ B − 1.

  >>> eye = jnp.eye(4)
  >>> round(float(hard_negative(eye, eye, scale=1.0, k=1)), 4)      # log(e + 1) − 1
  0.3133
  """
  options: dict[str, Any] = {'k': k, 'same': same, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(hard_negative_per_example(image, text, scale=scale, **options))


def hard_negative_per_example(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  k: int = 64,
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
    'exclude': same,
    'diagonal': False,
    'block_size': block_size,
    'mesh': mesh,
  }

  def one_way(anchors, others):
    hardest, _ = pairwise.top_k(anchors, others, min(k, len(image)), scale=scale, **options)
    return jax.nn.softplus(jax.nn.logsumexp(hardest, axis=1) - positive)

  return (one_way(image, text) + one_way(text, image)) / 2
