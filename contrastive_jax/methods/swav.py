"""SwAV: each view predicts the balanced assignment of the others to prototypes."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.methods.method import Result
from contrastive_jax.methods.projected import Projected
from contrastive_jax.models.heads import define_prototypes
from contrastive_jax.models.transformer import unit

# Global views, which are assigned; those after them are local.
ASSIGNED = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swav(Projected):
  """SwAV [1]: swapped prediction of the assignments of views to prototypes.

      L = mean over the first two views a and the views v ≠ a of CE(Qₐ, softmax(zᵥ cᵀ / τ))

  z are unit vectors from the projector, c the prototypes, unit vectors that are trained with the
  model, and Qₐ the balanced assignments of the batch, see `losses.swav`. The first two views are
  global, and those after them local, as `config.view_augmentation` makes them: [1] has six, of
  fewer pixels. Here all views have one size. The authors' code (facebookresearch/swav,
  main_swav.py) also freezes the prototypes in the first epoch, and has a queue for small batches.

  Attributes:
    hidden: width of the hidden layer of the projector.
    outputs: D, width of z and c.
    prototypes: K; it divides over the shards of the mesh.
    temperature: τ.
    epsilon: temperature of the assignments.
    iterations: of Sinkhorn.

  References:
    [1] Caron et al., https://arxiv.org/abs/2006.09882
  """

  prototypes: int = 3000
  temperature: float = 0.1
  epsilon: float = 0.05
  iterations: int = 3

  def __post_init__(self):
    mesh = getattr(self.mesh, 'mesh', self.mesh)  # of a ring
    shape = {} if mesh is None else mesh.shape
    shards = shape.get('data', 1) * shape.get('fsdp', 1)
    if self.prototypes % shards:
      raise ValueError(
        f"prototypes = {self.prototypes} do not divide over the mesh's {shards} shards; use a "
        f'multiple of {shards}'
      )

  def heads(self, sizes):
    """The projector and the prototypes."""
    return super().heads(sizes) | {'prototypes': define_prototypes(self.outputs, self.prototypes)}

  def loss(self, inputs, heads, memory, key):
    """The mean cross entropy."""
    options: dict[str, Any] = {'epsilon': self.epsilon, 'iterations': self.iterations}
    options |= {'scale': 1 / self.temperature, 'assigned': ASSIGNED, 'mesh': self.mesh}
    views = jnp.stack([unit(z) for z in self.project(inputs, heads)], 1)
    return Result(losses.swav(views, heads['prototypes'](), **options))

  def flops(self, sizes):
    """The projector, and the products of views and prototypes."""
    # Sinkhorn's passes and an expectation without gradients of its scores, of the assigned views;
    # and a log-sum-exp of each view.
    products = ASSIGNED * ((2 * self.iterations - 1) + 4) + 4 * sizes.views
    pairs = 2.0 * products * sizes.batch * self.prototypes * self.outputs
    return super().flops(sizes) + pairs
