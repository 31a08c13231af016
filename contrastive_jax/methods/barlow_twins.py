"""Barlow Twins: features of two views correlate with themselves alone."""

import dataclasses
import itertools
from typing import ClassVar

from contrastive_jax import losses
from contrastive_jax.methods.method import Result
from contrastive_jax.methods.projected import Projected


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarlowTwins(Projected):
  """Barlow Twins [1]: the cross-correlation of two views' projections approaches the identity.

      L = mean over pairs of views {a, b} of Σᵢ (Cᵢᵢ − 1)² + λ Σ_{i ≠ j} Cᵢⱼ²,   C = zₐᵀ z_b / B

  The features of z are standardized over the batch, see `losses.barlow_twins`; [1] has two views.
  The projector has two hidden layers with batch norm (facebookresearch/barlowtwins, main.py). C,
  8,192² there, is reduced in blocks: memory is linear in the batch and in `outputs`.

  Attributes:
    hidden: width of the two hidden layers of the projector.
    outputs: D, width of z.
    off_diagonal: λ; 0.0051 in the authors' code.

  References:
    [1] Zbontar et al., https://arxiv.org/abs/2103.03230
  """

  layers: ClassVar[int] = 2

  hidden: int = 8192
  outputs: int = 8192
  off_diagonal: float = 5e-3

  def loss(self, inputs, heads, memory, key):
    """The mean over pairs of views."""
    pairs = itertools.combinations(self.project(inputs, heads), 2)
    found = [
      losses.barlow_twins(*pair, off_diagonal=self.off_diagonal, mesh=self.mesh) for pair in pairs
    ]
    return Result(sum(found[1:], found[0]) / len(found))

  def flops(self, sizes):
    """The projector, and the correlations of all pairs: a sum of pairs takes three products."""
    pairs = sizes.views * (sizes.views - 1) / 2
    return super().flops(sizes) + 6.0 * pairs * self.outputs**2 * sizes.batch
