"""BYOL: SimSiam whose projections to predict come from a momentum encoder."""

import dataclasses
from typing import ClassVar

from contrastive_jax.methods.method import Momentum
from contrastive_jax.methods.simsiam import SimSiam


@dataclasses.dataclass(frozen=True, kw_only=True)
class Byol(SimSiam):
  """BYOL [1]: each view predicts the target encoder's projection of the others.

      L = mean over pairs of views a ≠ b of D(p(zₐ), z'_b),   D(p, z') = 2 − 2 mean cos(p, z')

  z' comes from the target encoder and its projector, moving averages of the model's, which start as
  its copy and have no gradient. With two views, the authors' loss is 2 L: they add both directions
  (google-deepmind/deepmind-research, byol/byol_experiment.py). Projector and predictor have one
  hidden layer with batch norm each.

  The metric `spread` is that of `SimSiam`, of z'.

  Attributes:
    hidden: width of the hidden layer of the projector.
    outputs: D, width of z and p.
    predictor_hidden: width of the hidden layer of the predictor.
    momentum: decay of the target encoder.
    final_momentum: decay at the last step, reached along a half cosine; None for `momentum`
      throughout.

  References:
    [1] Grill et al., https://arxiv.org/abs/2006.07733
  """

  layers: ClassVar[int] = 1
  last_norm: ClassVar[bool] = False

  hidden: int = 4096
  outputs: int = 256
  predictor_hidden: int = 4096
  momentum: float = 0.996
  final_momentum: float | None = 1.0

  @property
  def target(self) -> Momentum:
    """The encoder of z'."""
    return Momentum(self.momentum, self.final_momentum)
