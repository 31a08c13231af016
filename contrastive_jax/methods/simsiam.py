"""SimSiam: a predictor of one view's projection from another's, and a stopped gradient."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.methods.method import Result
from contrastive_jax.methods.projected import Projected
from contrastive_jax.models.heads import define_head, head_flops
from contrastive_jax.models.transformer import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimSiam(Projected):
  """SimSiam [1]: each view predicts the projection of the others, which get no gradient.

      L = mean over pairs of views a ≠ b of D(p(zₐ), z_b),   D(p, z) = 2 − 2 mean cos(p, sg z)

  With two views it is the paper's symmetric loss, as 2 L' + 2: a weight of 0.5 gives its gradient.
  The projector has three layers with batch norm, the last without scale and offset, and the
  predictor p a hidden layer with batch norm, as in the authors' code (facebookresearch/simsiam,
  simsiam/builder.py).

  The metric `spread`, √D times the mean standard deviation of the features of z / ‖z‖, tells a
  collapse: it is near 1 for vectors in all directions, and 0 where all are equal.

  Attributes:
    outputs: D, width of z and p.
    predictor_hidden: width of the hidden layer of the predictor.

  References:
    [1] Chen and He, https://arxiv.org/abs/2011.10566
  """

  layers: ClassVar[int] = 2
  last_norm: ClassVar[bool] = True

  outputs: int = 2048
  predictor_hidden: int = 512

  def heads(self, sizes):
    """The projector and the predictor."""
    predictor = define_head(self.outputs, (self.predictor_hidden,), self.outputs)
    return super().heads(sizes) | {'predictor': predictor}

  def loss(self, inputs, heads, memory, key):
    """The mean distance over pairs of different views."""
    projections = self.project(inputs, heads)
    aims = projections if self.target is None else self.project(inputs, heads, 'target.')
    predictions = map(heads['predictor'], projections)
    found = [
      losses.cosine(prediction, aim)
      for own, prediction in enumerate(predictions)
      for other, aim in enumerate(aims)
      if own != other
    ]
    return Result(sum(found[1:], found[0]) / len(found), metrics={'spread': spread(aims[0])})

  def flops(self, sizes):
    """The projector and the predictor of all views."""
    rows = sizes.views * sizes.batch
    predictor = head_flops(self.outputs, (self.predictor_hidden,), self.outputs, rows)
    return super().flops(sizes) + predictor


def spread(vectors: jax.Array) -> jax.Array:
  """√D times the mean standard deviation of the features of z / ‖z‖ over a batch [B, D].

  >>> spread(jnp.ones((3, 2)))
  Array(0., dtype=float32)
  >>> spread(jnp.concatenate([jnp.eye(2), -jnp.eye(2)])).round(4)
  Array(1., dtype=float32)
  """
  return jnp.sqrt(vectors.shape[1]) * jnp.mean(jnp.std(unit(vectors), 0))
