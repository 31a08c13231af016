"""The contrastive loss of a restored image with sharper and blurrier ones, PCL-SR."""

import jax
import jax.numpy as jnp

_UNDER_ROOT = 1e-12


def restoration(
  features: jax.Array, positives: jax.Array, negatives: jax.Array, *, scale: float = 1.0
) -> jax.Array:
  """The contrastive loss of restored images [1]: near to sharp images, far from blurred ones.

      L = mean over images i and positives p of
            −log( e^{s(fᵢ, p)} / (e^{s(fᵢ, p)} + Σ_n e^{s(fᵢ, n)}) )
      s(f, g) = scale · mean over positions of the cosine of the channels

  Positives are the target, and sharpened copies of it; negatives are the input enlarged, and
  blurred copies of the target. They get no gradient. The authors average it over layers of a
  network, such as the discriminator.

  Args:
    features: [B, H, W, C] of the restored images, of one layer.
    positives: [P, B, H, W, C].
    negatives: [N, B, H, W, C].
    scale: the inverse temperature; 1 in the authors' code.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if shapes do not match, or there is no positive or negative.

  References:
    [1] Wu et al., A Practical Contrastive Learning Framework for Single-Image Super-Resolution,
      2021, https://arxiv.org/abs/2111.13924; formula as in Aitical/PCL-SISR: src/loss/cl.py.

  >>> x = jnp.eye(2)[None, None]                                           # [1, 1, 2, 2]
  >>> round(float(restoration(x, x[None], x[None, ..., ::-1])), 4)      # log(1 + e⁰⁻¹)
  0.3133
  """
  for name, others in (('positives', positives), ('negatives', negatives)):
    if features.ndim != 4 or others.shape[1:] != features.shape or not len(others):
      raise ValueError(
        f'features {features.shape} and {name} {others.shape} do not match; give [B, H, W, C] and '
        '[N, B, H, W, C], N over 0'
      )
  positives, negatives = jax.lax.stop_gradient((positives, negatives))
  positive = scale * cosine_of_positions(features, positives)  # [P, B]
  negative = jax.nn.logsumexp(scale * cosine_of_positions(features, negatives), 0)  # [B]
  return jnp.mean(jnp.logaddexp(positive, negative) - positive)


def cosine_of_positions(x: jax.Array, y: jax.Array) -> jax.Array:
  """The mean over positions of the cosine of the channels of two feature maps.

  Args:
    x: [..., H, W, C].
    y: [..., H, W, C], of a shape that broadcasts with it.

  Returns:
    [...], float32 or wider; a vector of zeros has the cosine 0.
  """
  dtype = jnp.promote_types(jnp.promote_types(x.dtype, y.dtype), jnp.float32)
  x, y = (z.astype(dtype) for z in (x, y))
  norms = jnp.sqrt(jnp.sum(x * x, -1) * jnp.sum(y * y, -1) + _UNDER_ROOT)
  return jnp.mean(jnp.sum(x * y, -1) / norms, (-2, -1))
