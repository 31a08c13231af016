"""InfoNCE between two modalities, the loss of CLIP."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise


def info_nce(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
  kernel: str = 'scan',
) -> jax.Array:
  """Symmetric InfoNCE, the CLIP loss [1].

      L = ½ meanᵢ( logsumexpⱼ sᵢⱼ − sᵢᵢ ) + ½ meanⱼ( logsumexpᵢ sᵢⱼ − sⱼⱼ )
      s = scale · image textᵀ

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    same: [B] integers; two rows with the same integer are not negatives of each other. Default:
      all differ.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the batch is sharded, by its axes named 'data' and 'fsdp' (others hold
      copies); None for one device.
    kernel: 'scan' or 'pallas', as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, or as `pairwise.logsumexp`.

  References:
    [1] Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.

  >>> eye = jnp.eye(4)
  >>> round(float(info_nce(eye, eye, scale=1.0)), 4)      # log(e + 3) − 1
  0.7437
  """
  if image.shape != text.shape:
    raise ValueError(f'image {image.shape} and text {text.shape} differ; give two [B, D]')
  rows, columns = pairwise.logsumexp(
    image, text, scale=scale, exclude=same, block_size=block_size, mesh=mesh, kernel=kernel
  )
  positive = scale * pairwise.paired(image, text)
  return jnp.mean((rows + columns) / 2 - positive)
