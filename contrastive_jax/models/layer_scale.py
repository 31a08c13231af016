"""Layer scale."""

import jax.numpy as jnp
from flax import nnx


class LayerScale(nnx.Module):
  """A learned factor per channel [1].

  References:
    [1] Touvron et al., Going Deeper with Image Transformers, 2021.
  """

  def __init__(self, width, start):
    self.scale = nnx.Param(jnp.full(width, start, jnp.float32), axes=('embed',))

  def __call__(self, x):
    """Maps x [..., D] to [..., D]."""
    return (x.astype(jnp.float32) * self.scale[...]).astype(x.dtype)
