"""Decoupled contrastive learning: DCL and DCLW."""

from typing import Any

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
  """NT-Xent without the positive in the denominator [1].

      L = meanₐ( log Σ_{c ≠ a, p(a)} exp(sₐ꜀) − wₐ sₐₚ₍ₐ₎ ),   s = scale · z zᵀ

  The gradient of the positive then stays the same however easy the positive is. DCL has wₐ = 1.
  DCLW has wₐ = 2 − exp(⟨zₐ, zₚ₍ₐ₎⟩ / σ) / mean exp(⟨z, zₚ⟩ / σ), whose mean is 1: positives that
  are far apart weigh more. Gradients flow through w.

  Args:
    first: [B, D] unit vectors, row i a view of the same example as row i of `second`.
    second: [B, D] unit vectors.
    scale: scalar, the inverse temperature; 10 in [1].
    sigma: σ of DCLW, 0.5 in [1]; None for DCL.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, or B is 1: one example has no negatives.

  References:
    [1] Yeh et al., Decoupled Contrastive Learning, 2022, https://arxiv.org/abs/2110.06848.

  See also `nt_xent`.

  >>> eye = jnp.eye(4)
  >>> round(float(decoupled(eye, eye, scale=1.0)), 4)      # log(2 · 3) − 1
  0.7918
  """
  options: dict[str, Any] = {'sigma': sigma, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(decoupled_per_example(first, second, scale=scale, **options))


def decoupled_per_example(
  first: jax.Array,
  second: jax.Array,
  *,
  scale: jax.Array | float,
  sigma: float | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], averaged over its two anchors; `decoupled` is its mean.

  It takes the same arguments.

  >>> eye = jnp.eye(4)
  >>> losses = decoupled_per_example(eye, eye, scale=1.0)
  >>> [round(float(loss), 2) for loss in losses]      # log(2 · 3) − 1
  [0.79, 0.79, 0.79, 0.79]
  """
  if len(first) < 2:
    raise ValueError(f'first has {len(first)} rows, and no negatives; give 2 or more')
  rows, columns = two_views(
    first, second, scale=scale, diagonal=False, block_size=block_size, mesh=mesh
  )
  positive = pairwise.paired(first, second)
  weight = 1.0 if sigma is None else 2.0 - len(first) * jax.nn.softmax(positive / sigma)
  return (rows + columns) / 2 - weight * scale * positive
