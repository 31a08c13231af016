"""Activation functions by name."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
  """Exact GELU, x Φ(x), in float32; with erf, which XLA computes twice as fast as JAX's erfc."""
  wide = x.astype(jnp.float32)
  return (wide * _normal_cdf(wide)).astype(x.dtype)


def _gelu_backward(x, gradient):
  # The barrier forces erf to be recomputed: saving it in float32 would cost more.
  wide = jax.lax.optimization_barrier(x).astype(jnp.float32)
  density = jnp.exp(-0.5 * wide * wide) * (2 * math.pi) ** -0.5
  slope = _normal_cdf(wide) + wide * density
  return ((gradient.astype(jnp.float32) * slope).astype(x.dtype),)


def _normal_cdf(x):
  return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def quick_gelu(x: jax.Array) -> jax.Array:
  """The activation of OpenAI's CLIP weights, x σ(1.702 x)."""
  return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'gelu': gelu,
  'gelu_tanh': partial(jax.nn.gelu, approximate=True),
  'quick_gelu': quick_gelu,
  'relu': jax.nn.relu,
}
