"""The sigmoid loss of SigLIP."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def sigmoid(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  bias: jax.Array | float,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The sigmoid loss for language-image pretraining [1].

      L = (1 / B) Σᵢⱼ softplus( −zᵢⱼ sᵢⱼ ),   zᵢⱼ = 1 if i = j else −1
      s = scale · image textᵀ + bias

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature; 10 at the start of training in [1].
    bias: scalar; −10 at the start of training in [1], since most pairs are negative.
    same: [B] integers; rows with the same integer are not negatives of each other: their pairs
      have no term in the sum. Default: all differ, as in [1].
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, or as `pairwise.sum`.

  References:
    [1] Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023,
      https://arxiv.org/abs/2303.15343.

  See also `info_nce`.

  >>> eye = jnp.eye(4)
  >>> round(float(sigmoid(eye, eye, scale=0.0, bias=0.0)), 4)      # 4 log 2
  2.7726
  """
  options: dict[str, Any] = {'same': same, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(sigmoid_per_example(image, text, scale=scale, bias=bias, **options))


def sigmoid_per_example(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  bias: jax.Array | float,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each image [B], of which `sigmoid` is the mean; it takes the same arguments.

      Lᵢ = Σⱼ softplus( −zᵢⱼ sᵢⱼ )

  >>> eye = jnp.eye(2)
  >>> losses = sigmoid_per_example(eye, eye, scale=0.0, bias=0.0)
  >>> [round(float(loss), 4) for loss in losses]      # 2 log 2
  [1.3863, 1.3863]
  """
  check_pairs(image=image, text=text)
  rows, _ = pairwise.sum(
    image,
    text,
    _negative_log_likelihood,
    scale=scale,
    bias=bias,
    exclude=same,
    positive=jnp.arange(len(image)),
    block_size=block_size,
    mesh=mesh,
  )
  return rows


def _negative_log_likelihood(scores, positive):
  return jax.nn.softplus(jnp.where(positive, -scores, scores))
