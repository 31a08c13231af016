"""The absolute error of a linear regression of a number per image, the L1 loss."""

import dataclasses

import jax
import jax.numpy as jnp

from contrastive_jax.methods.method import Method, Result
from contrastive_jax.models.heads import define_head, head_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbsoluteError(Method):
  """The mean absolute error of a linear head on the image features, trained with the encoder.

      L = meanᵢ |h(xᵢ) − (yᵢ − center) / spread|

  x are unit image features before the projection, like those that probes read.

  Attributes:
    center: about the mean of the numbers y.
    spread: about their standard deviation, over 0.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: if `spread` is not over 0.
  """

  center: float = 0.0
  spread: float = 1.0
  mesh: jax.sharding.Mesh | None = None

  reads = ('image_features', 'number')

  def __post_init__(self):
    if not self.spread > 0:
      raise ValueError(f'spread = {self.spread}; use a number over 0')

  def heads(self, sizes):
    """The linear head."""
    return {'regression': define_head(sizes.image_features, (), 1, norm='none')}

  def loss(self, inputs, heads, memory, key):
    """The loss; `mean_absolute_error` is in the unit of the numbers."""
    x = inputs['image_features'].astype(jnp.float32)
    # Unit features, with a mean square of 1
    root = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=1, keepdims=True) + 1e-12)
    predicted = heads['regression'](x * root)[:, 0]
    loss = jnp.mean(jnp.abs(predicted - (inputs['number'] - self.center) / self.spread))
    return Result(loss, metrics={'mean_absolute_error': loss * self.spread})

  def flops(self, sizes):
    """Those of the head."""
    return head_flops(sizes.image_features, (), 1, sizes.batch)
