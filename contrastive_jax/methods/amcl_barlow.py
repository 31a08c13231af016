"""AMCL on Barlow Twins: several projections, and a predicted temperature per pair of features."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses.views.adaptive import Bounds, adaptive_barlow_twins
from contrastive_jax.methods.adaptive import Adaptive
from contrastive_jax.methods.method import Result
from contrastive_jax.models.heads import define_head, head_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmclBarlow(Adaptive):
  """AMCL [1] on Barlow Twins.

      L = Σ_c ( Σᵢ (1 − Cᵢᵢ)² / τᵢᵢ + λ Σ_{i ≠ j} Cᵢⱼ² / τᵢⱼ + β Σᵢ Ω(τᵢᵢ) − β Σ_{i ≠ j} Ω(τᵢⱼ) )
      τᵢⱼ = τ_min + (τ_max − τ_min) σ(−⟨φ(xᵢ), φ(yⱼ)⟩),   Ω(τ) = (D / 2) log τ + 1 / τ

  C is the correlation of the features x and y of two views, each a vector of the whole batch, which
  φ maps to another: its size is that of the batch. A last batch norm without scale and offset
  standardizes the features. C and τ, 2,048² in [1], are reduced in blocks, see
  `losses.views.adaptive.adaptive_barlow_twins`.

  Attributes:
    hidden: width of the two hidden layers of each projector.
    off_diagonal: λ.

  References:
    [1] Wang et al., https://arxiv.org/abs/2310.05615; sizes and Ω as in LeiWangR/cl:
      amcl/losses.py, amcl/models.py.
  """

  hidden: int = 2048
  outputs: int = 2048
  beta: float = 1e-6
  bounds: Bounds = (1e-5, 2.0)
  off_diagonal: float = 5e-3

  def projector(self, sizes):
    """The definition of a projector, that of Barlow Twins with a last batch norm."""
    widths = (self.hidden,) * 2, self.outputs
    return define_head(sizes.image_features, *widths, last_norm=True)

  def width(self, sizes):
    """Of what φ maps: a feature of the whole batch."""
    return sizes.batch

  def loss(self, inputs, heads, memory, key):
    """The sum over the projections."""
    first, second = (self.project(inputs[read], heads) for read in self.reads)
    options: dict[str, Any] = {'off_diagonal': self.off_diagonal, 'mesh': self.mesh}
    options |= {'beta': self.beta, 'bounds': self.bounds}
    loss, shares = jnp.float32(0), []
    # A loop: the gradient of `jax.lax.map` would store which pairs count, D x D.
    for x, y in zip(first, second, strict=True):
      own, near = adaptive_barlow_twins(x, y, heads['temperature'], **options)
      loss += own
      shares.append(near)
    means = jax.tree.map(lambda *share: sum(share) / self.projectors, *shares)
    return Result(loss, metrics=means)

  def flops(self, sizes):
    """The heads of both views, and two products per pair of features."""
    widths = sizes.image_features, (self.hidden,) * 2, self.outputs
    pairs = 2 * 8.0 * self.outputs**2 * sizes.batch
    projectors = head_flops(*widths, 2 * sizes.batch)
    return self.projectors * (pairs + projectors) + self.phi_flops(sizes, 2 * self.outputs)
