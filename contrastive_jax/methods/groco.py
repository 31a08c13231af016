"""GroCo: a sorting network ranks the other views of an image above other images."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.methods.method import Result
from contrastive_jax.methods.projected import Projected
from contrastive_jax.models.transformer import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroCo(Projected):
  """`losses.groco` of the projections of two or more views [1].

  The projector has two hidden layers and batch norm, also after its last layer, as the authors'
  (ninatu/learning_by_sorting: learning_by_sorting/models/projection/regular_projection.py). The
  norm is what keeps the method from collapse: no gradient flows into positives or negatives, and
  without norm all images of the emoji have one embedding after 50 steps.

  Attributes:
    outputs: D, width of z.
    k: number of negatives per view, below the batch size.
    steepness: of the sorting network's comparisons.

  References:
    [1] Shvetsova et al., https://arxiv.org/abs/2301.02009
  """

  layers: ClassVar[int] = 2
  last_norm: ClassVar[bool] = True

  outputs: int = 2048
  k: int = 10
  steepness: float = 1.0

  def loss(self, inputs, heads, memory, key):
    """The mean over views."""
    views = jnp.stack([unit(z) for z in self.project(inputs, heads)], 1)
    return Result(losses.groco(views, k=self.k, steepness=self.steepness, mesh=self.mesh))

  def flops(self, sizes):
    """The projector, and the products of each view with itself of all examples."""
    return super().flops(sizes) + 4.0 * sizes.views * sizes.batch**2 * self.outputs
