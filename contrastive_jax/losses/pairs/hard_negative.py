"""InfoNCE against the hardest negatives."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise


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
  """Symmetric InfoNCE whose negatives are each anchor's k hardest, the hard contrastive loss [1].

      L = ½ meanᵢ log( 1 + Σ_{j ∈ H(i)} exp(sᵢⱼ − sᵢᵢ) ) + ½ (the same of the texts)
      s = scale · image textᵀ

  where H(i) are the k texts j ≠ i of greatest sᵢⱼ: easy negatives weigh nothing.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    k: how many negatives an anchor has; all of them where there are fewer.
    same: [B] integers; two rows with the same integer are not negatives of each other. Default:
      all differ.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the batch is sharded, by its axes named 'data' and 'fsdp' (others hold
      copies); None for one device.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ.

  References:
    [1] Wang and Liu, Understanding the Behaviour of Contrastive Loss, 2021.

  >>> eye = jnp.eye(4)
  >>> round(float(hard_negative(eye, eye, scale=1.0, k=1)), 4)      # log(e + 1) − 1
  0.3133
  """
  if image.shape != text.shape:
    raise ValueError(f'image {image.shape} and text {text.shape} differ; give two [B, D]')
  positive = scale * pairwise.paired(image, text)

  def one_way(anchors, others):
    hardest, _ = pairwise.top_k(
      anchors,
      others,
      min(k, len(image)),
      scale=scale,
      exclude=same,
      diagonal=False,
      block_size=block_size,
      mesh=mesh,
    )
    return jnp.mean(jax.nn.softplus(jax.nn.logsumexp(hardest, axis=1) - positive))

  return (one_way(image, text) + one_way(text, image)) / 2
