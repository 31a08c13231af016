"""Projections whose pairs have predicted temperatures, which the methods of AMCL compare."""

import dataclasses

import jax
import jax.numpy as jnp

from contrastive_jax.losses.views.adaptive import Bounds
from contrastive_jax.methods.method import Method, Sizes
from contrastive_jax.models.heads import define_head, head_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive(Method):
  """A sum over projections, whose pairs have temperatures by a network that all share.

  Attributes:
    projectors: C, how many projections of the pooled features there are.
    hidden: width of the hidden layer of each projector.
    outputs: D, width of each projection.
    temperature_hidden: width of the hidden layer of φ, the network of temperatures.
    beta: β, the weight of the regularizer of temperatures.
    bounds: τ_min and τ_max. No minimum keeps temperatures from them, and the metrics
      `positive_at_min` and the like are the shares of pairs near each: a higher τ_min bounds the
      loss.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: if a number is out of range; from `heads`, if `config.batch_size` is 1.
  """

  projectors: int = 3
  hidden: int = 512
  outputs: int = 128
  temperature_hidden: int = 128
  beta: float = 1e-4
  bounds: Bounds = (1e-5, 2.0)
  mesh: jax.sharding.Mesh | None = None

  reads = ('features_of_view.0', 'features_of_view.1')

  def __post_init__(self):
    if self.projectors < 1 or self.temperature_hidden < 1:
      given = f'{self.projectors} and temperature_hidden = {self.temperature_hidden}'
      raise ValueError(f'projectors = {given}; use 1 or more')
    if len(self.bounds) != 2 or not 0 < self.bounds[0] < self.bounds[1]:
      raise ValueError(f'bounds = {self.bounds}; use 0 < low < high')

  def heads(self, sizes):
    """The projectors and φ."""
    if sizes.batch < 2:
      raise ValueError(f'config.batch_size = {sizes.batch} has no negatives; use 2 or more')
    phi = self.width(sizes), (self.temperature_hidden,), self.width(sizes)
    made = {f'projector_{n}': self.projector(sizes) for n in range(self.projectors)}
    return made | {'temperature': define_head(*phi, norm='none')}

  def projector(self, sizes: Sizes):
    """The definition of a projector."""
    return define_head(sizes.image_features, (self.hidden,), self.outputs, norm='none')

  def width(self, sizes: Sizes) -> int:
    """Of what φ maps."""
    return self.outputs

  def project(self, features: jax.Array, heads, encoder: str = '') -> jax.Array:
    """The projections [C, B, D] of features [B, W].

    Args:
      features: of one view.
      heads: modules by name.
      encoder: '', or 'target.' for the heads of the target encoder.
    """
    found = [heads[f'{encoder}projector_{n}'](features) for n in range(self.projectors)]
    return jnp.stack(found)

  def phi_flops(self, sizes: Sizes, rows: float) -> float:
    """Operations of φ for a number of rows per projection."""
    width = self.width(sizes)
    return head_flops(width, (self.temperature_hidden,), width, self.projectors * rows)
