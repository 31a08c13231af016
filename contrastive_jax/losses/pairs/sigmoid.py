"""The sigmoid loss of SigLIP."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise


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
    scale: scalar, the inverse temperature; the paper's starts at 10.
    bias: scalar; the paper's starts at −10, for most pairs are negative.
    same: [B] integers; two rows with the same integer are not negatives of each other: their pairs
      have no term in the sum. Default: all differ, as in the paper.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the batch is sharded, by its axes named 'data' and 'fsdp' (others hold
      copies); None for one device.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ.

  References:
    [1] Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.

  >>> eye = jnp.eye(4)
  >>> round(float(sigmoid(eye, eye, scale=0.0, bias=0.0)), 4)      # 4 log 2
  2.7726
  """
  if image.shape != text.shape:
    raise ValueError(f'image {image.shape} and text {text.shape} differ; give two [B, D]')
  rows, _ = pairwise.sum(
    image,
    text,
    _surprise,
    scale=scale,
    bias=bias,
    exclude=same,
    positive=jnp.arange(len(image)),
    block_size=block_size,
    mesh=mesh,
  )
  return jnp.mean(rows)


def _surprise(scores, positive):
  return jax.nn.softplus(jnp.where(positive, -scores, scores))
