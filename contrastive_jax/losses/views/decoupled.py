"""Decoupled contrastive learning: DCL and DCLW."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.views.nt_xent import two_views


def decoupled(
  first: jax.Array,
  second: jax.Array,
  *,
  scale: jax.Array | float,
  sigma: float | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """NT-Xent without the positive in the denominator [1], whose gradient then never fades.

      L = meanₐ( log Σ_{c ≠ a, p(a)} exp(sₐ꜀) − wₐ sₐₚ₍ₐ₎ ),   s = scale · z zᵀ

  DCL has wₐ = 1. DCLW has wₐ = 2 − exp(⟨zₐ, zₚ₍ₐ₎⟩ / σ) / mean exp(⟨z, zₚ⟩ / σ), whose mean is 1:
  positives that are far apart weigh more. Gradients flow through w.

  Args:
    first: [B, D] unit vectors, row i a view of the same example as row i of `second`.
    second: [B, D] unit vectors.
    scale: scalar, the inverse temperature; the paper's is 10.
    sigma: σ of DCLW, of which the paper's is 0.5; None for DCL.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the batch is sharded, by its axes named 'data' and 'fsdp' (others hold
      copies); None for one device.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, or B is 1: one example has no negatives.

  References:
    [1] Yeh et al., Decoupled Contrastive Learning, 2022.

  >>> eye = jnp.eye(4)
  >>> round(float(decoupled(eye, eye, scale=1.0)), 4)      # log(2 · 3) − 1
  0.7918
  """
  if len(first) < 2:
    raise ValueError(f'first has {len(first)} rows, and no negatives; give 2 or more')
  rows, columns = two_views(
    first, second, scale=scale, diagonal=False, block_size=block_size, mesh=mesh
  )
  positive = pairwise.paired(first, second)
  weight = 1.0 if sigma is None else 2.0 - len(first) * jax.nn.softmax(positive / sigma)
  return jnp.mean((rows + columns) / 2 - weight * scale * positive)
