"""The terms of MIM and cMIM between a batch of latents and their distributions."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs
from contrastive_jax.losses.views.features import wide

DIVIDED = ('none', 'gradient', 'value')


def mim_contrast(
  latents: jax.Array,
  *,
  scale: jax.Array | float = 10.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The contrastive term of cMIM [1], which tells a latent from those of other examples.

      L = − meanᵢ log p(k = 1 | zᵢ)
      log p(k = 1 | zᵢ) = cᵢᵢ − log( exp cᵢᵢ + 1 / (B − 1) Σ_{j ≠ i} exp cᵢⱼ )
      cᵢⱼ = s cos(zᵢ, zⱼ)

  An example is its own positive, so cᵢᵢ = s, and only the negatives have a gradient. Their mean in
  place of InfoNCE's sum makes the loss independent of the number of negatives: it is
  log(1 + exp(−s)) for orthogonal latents, and between log(1 + exp(−2s)) and log 2 for any.

  Args:
    latents: [B, D] vectors of any length.
    scale: s, scalar, the inverse temperature.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats; 0 for a batch of one, which has no negatives.

  Raises:
    ValueError: if `latents` is not [B, D], or as `pairwise.logsumexp`.

  References:
    [1] Livne, Contrastive MIM, 2025, https://arxiv.org/abs/2502.19642; formulas as in
      NVIDIA-BioNeMo/KERMT: kermt/model/models.py.

  >>> round(float(mim_contrast(jnp.eye(4), scale=1.0)), 4)      # log(1 + 1 / e)
  0.3133
  """
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh}
  return jnp.mean(mim_contrast_per_example(latents, scale=scale, **options))


def mim_contrast_per_example(
  latents: jax.Array,
  *,
  scale: jax.Array | float = 10.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], of which `mim_contrast` is the mean.

  >>> losses = mim_contrast_per_example(jnp.ones((2, 3)))
  >>> [round(float(loss), 4) for loss in losses]      # log 2
  [0.6931, 0.6931]
  """
  check_pairs(latents=latents)
  B = len(latents)
  if B == 1:
    return jnp.zeros(1, jnp.float32)
  z = wide(latents)
  # The bound keeps the gradient of a zero row finite.
  z *= jax.lax.rsqrt(jnp.maximum(jnp.sum(z * z, 1, keepdims=True), 1e-24))
  negatives, _ = pairwise.logsumexp(
    z, z, scale=scale, diagonal=False, block_size=block_size, mesh=mesh
  )
  return jax.nn.softplus(negatives - math.log(B - 1) - scale)


def mim_densities(
  latents: jax.Array, mean: jax.Array, log_scale: jax.Array, *, divide: str = 'none'
) -> jax.Array:
  """The densities of a Mutual Information Machine (MIM) [1]: of the encoder and of the prior.

      L = − ½ meanᵢ ( log q(zᵢ | xᵢ) + log P(zᵢ) )
      q(z | x) = N(mean(x), diag exp(2 log_scale(x))),   P(z) = N(0, I)

  Log densities are sums over the D dimensions, so their weight beside other terms grows with D.

  Args:
    latents: [B, D] samples z of q.
    mean: [B, D].
    log_scale: [B, D].
    divide: 'gradient' divides the gradient by D, 'value' the value too, 'none' nothing.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, or for an unknown `divide`.

  References:
    [1] Livne et al., MIM: Mutual Information Machine, 2019, https://arxiv.org/abs/1910.03175;
      formulas and options as in NVIDIA-BioNeMo/KERMT: kermt/model/models.py.

  >>> z = jnp.zeros((2, 3))
  >>> round(float(mim_densities(z, z, z)), 4)      # 3/2 log 2π
  2.7568
  """
  return jnp.mean(mim_densities_per_example(latents, mean, log_scale, divide=divide))


def mim_densities_per_example(
  latents: jax.Array, mean: jax.Array, log_scale: jax.Array, *, divide: str = 'none'
) -> jax.Array:
  """The loss of each example [B], of which `mim_densities` is the mean.

  >>> z = jnp.zeros((2, 3))
  >>> losses = mim_densities_per_example(z, z, z, divide='value')
  >>> [round(float(loss), 4) for loss in losses]      # 1/2 log 2π
  [0.9189, 0.9189]
  """
  check_pairs(latents=latents, mean=mean, log_scale=log_scale)
  if divide not in DIVIDED:
    raise ValueError(f'divide = {divide!r} is unknown; use one of {DIVIDED}')
  z, mean, log_scale = wide(latents), wide(mean), wide(log_scale)
  noise = (z - mean) * jnp.exp(-log_scale)
  D = z.shape[1]
  squares = jnp.sum(noise**2 + z**2, 1) / 2
  loss = (squares + jnp.sum(log_scale, 1) + D * math.log(2 * math.pi)) / 2
  if divide == 'none':
    return loss
  divided = loss / D
  # The value is that of the loss, the gradient that of the quotient.
  return divided if divide == 'value' else divided + jax.lax.stop_gradient(loss - divided)
