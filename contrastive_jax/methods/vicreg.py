"""VICReg: views agree, and their features vary and do not correlate."""

import dataclasses
import itertools
from typing import Any, ClassVar

from contrastive_jax import losses
from contrastive_jax.methods.method import Result
from contrastive_jax.methods.projected import Projected


@dataclasses.dataclass(frozen=True, kw_only=True)
class VicReg(Projected):
  """VICReg [1]: invariance, variance and covariance of the projections of two views.

      L = mean over pairs of views {a, b} of
            λ mean (zₐ − z_b)² + μ (v(zₐ) + v(z_b)) / 2 + ν (c(zₐ) + c(z_b))

  v is a hinge on the standard deviations of the features over the batch and c the mean square of
  their covariances, see `losses.vicreg`; [1] has two views. The projector, an expander there, has
  two hidden layers with batch norm (facebookresearch/vicreg, main_vicreg.py).

  Attributes:
    hidden: width of the two hidden layers of the projector.
    outputs: D, width of z.
    invariance: λ.
    variance: μ.
    covariance: ν.

  References:
    [1] Bardes et al., https://arxiv.org/abs/2105.04906
  """

  layers: ClassVar[int] = 2

  hidden: int = 8192
  outputs: int = 8192
  invariance: float = 25.0
  variance: float = 25.0
  covariance: float = 1.0

  def loss(self, inputs, heads, memory, key):
    """The mean over pairs of views."""
    weights: dict[str, Any] = {'invariance': self.invariance, 'variance': self.variance}
    weights |= {'covariance': self.covariance, 'mesh': self.mesh}
    pairs = itertools.combinations(self.project(inputs, heads), 2)
    found = [losses.vicreg(*pair, **weights) for pair in pairs]
    return Result(sum(found[1:], found[0]) / len(found))

  def flops(self, sizes):
    """The projector, and the covariances of both views of all pairs, in four products each."""
    views = sizes.views * (sizes.views - 1)
    return super().flops(sizes) + 8.0 * views * self.outputs**2 * sizes.batch
