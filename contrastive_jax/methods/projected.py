"""Projections of the views of an image, which methods without negatives compare."""

import dataclasses
from typing import ClassVar

import jax

from contrastive_jax.methods.method import Arrays, Method
from contrastive_jax.models.heads import define_head, head_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projected(Method):
  """A loss of projections z of two or more views; the base of SimSiam, Barlow Twins and others.

  A projector, a multilayer perceptron with batch norm, maps the pooled features of each view to z.
  The batch statistics are those of one view of the whole batch.

  Attributes:
    layers: hidden layers of the projector.
    last_norm: whether batch norm without scale and offset follows its last layer.
    hidden: width of each hidden layer.
    outputs: D, width of z.
    mesh: the mesh over which the batch is sharded; None for one device.
  """

  layers: ClassVar[int] = 1
  last_norm: ClassVar[bool] = False

  hidden: int = 2048
  outputs: int = 128
  mesh: jax.sharding.Mesh | None = None

  @property
  def reads(self) -> tuple[str, ...]:
    """Features of all views, and of the target encoder's, where there is one."""
    name = 'view_features:2'
    return (name,) if self.target is None else (name, f'target.{name}')

  def heads(self, sizes):
    """The projector; raises ValueError for a batch of one, which has no statistics."""
    if sizes.batch < 2:
      raise ValueError(
        f'config.batch_size = {sizes.batch}: the projector of {type(self).__name__} normalizes '
        'over the batch; use 2 or more'
      )
    widths = (self.hidden,) * self.layers, self.outputs
    return {'projector': define_head(sizes.image_features, *widths, last_norm=self.last_norm)}

  def project(self, inputs: Arrays, heads, encoder: str = '') -> list[jax.Array]:
    """The projections [B, D] of each view.

    Args:
      inputs: features of the views.
      heads: modules by name.
      encoder: '', or 'target.' for those of the target encoder.
    """
    features = inputs[f'{encoder}view_features']
    projector = heads[f'{encoder}projector']
    return [projector(features[:, number]) for number in range(features.shape[1])]

  def flops(self, sizes):
    """The projector of all views; a target's runs forward alone, a third of the operations."""
    passes = 1 + (self.target is not None) / 3
    widths = sizes.image_features, (self.hidden,) * self.layers, self.outputs
    return passes * head_flops(*widths, sizes.views * sizes.batch)
