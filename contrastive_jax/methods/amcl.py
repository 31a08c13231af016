"""AMCL: several projections, and a predicted temperature per pair in place of a softmax."""

import dataclasses

import jax
import jax.numpy as jnp

from contrastive_jax.losses.views.adaptive import SHARES, Vectors, adaptive_contrast, at_bounds
from contrastive_jax.methods.adaptive import Adaptive
from contrastive_jax.methods.method import Result
from contrastive_jax.models.heads import head_flops
from contrastive_jax.models.transformer import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amcl(Adaptive):
  """AMCL [1] on SimCLR: adaptive multi-head contrastive learning.

      L = Σ_c mean_a( −s⁺ / τ⁺ + (1 / k) Σ_n s_n / τ_n + β Ω(τ⁺) − β Σ_n (log τ_n + 1 / τ_n) )
      τ = τ_min + (τ_max − τ_min) σ(−⟨φ(x), φ(y)⟩),   Ω(τ) = (D / 2) log τ + 1 / τ

  over the two views a of each example, by each of C projections. s are cosines of a with its
  positive, the other view, and with the k negatives n of the greatest cosines among the 2B − 2
  views of other examples; all of these where there are fewer. φ maps a projection to a vector of
  its width, in float32. See `losses.views.adaptive.adaptive_contrast`.

  Attributes:
    k: the number of negatives.

  References:
    [1] Wang et al., https://arxiv.org/abs/2310.05615; formulas as in LeiWangR/cl: amcl/losses.py,
      amcl/models.py.
  """

  k: int = 100

  def loss(self, inputs, heads, memory, key):
    """The sum over the projections of the mean over anchors."""
    first, second = (unit(self.project(inputs[read], heads)) for read in self.reads)
    B = first.shape[1]
    # The views of an example are consecutive rows.
    z = jnp.stack([first, second], 2)
    both = Vectors(z, heads['temperature'](z))
    anchors = jax.tree.map(_rows, both)
    positives = jax.tree.map(lambda a: _rows(a[:, :, ::-1]), both)
    own = jnp.repeat(jnp.arange(B), 2)
    options = {'exclude': own, 'diagonal': False, 'k': min(self.k, 2 * B - 2)}
    return self.contrast(anchors, positives, anchors, **options)

  def contrast(self, anchors, positives, candidates, **options) -> Result:
    """The loss of vectors [C, N, D], see `adaptive_contrast`."""
    options |= {'beta': self.beta, 'bounds': self.bounds, 'mesh': self.mesh}

    loss, shares = jnp.float32(0), []
    # A loop: the gradient of `jax.lax.map` would store which pairs count, N x N.
    for n in range(self.projectors):
      vectors = jax.tree.map(lambda a, n=n: a[n], (anchors, positives, candidates))
      terms = adaptive_contrast(*vectors, **options)
      near = [share for tau in terms[1:] for share in at_bounds(tau, self.bounds)]
      loss += jnp.mean(terms.loss)
      shares.append([jnp.mean(share) for share in near])
    means = jnp.mean(jnp.array(shares), 0)
    return Result(loss, metrics=dict(zip(SHARES, means, strict=True)))

  def flops(self, sizes):
    """The heads of both views, the products of all pairs, and those of φ with the negatives."""
    rows, k = 2 * sizes.batch, min(self.k, 2 * sizes.batch - 2)
    widths = sizes.image_features, (self.hidden,), self.outputs
    pairs = 6.0 * rows * rows + 8.0 * rows * k
    return self.projectors * (pairs * self.outputs + head_flops(*widths, rows)) + self.phi_flops(
      sizes, rows
    )


def _rows(views: jax.Array) -> jax.Array:
  """[C, B, V, D] as [C, B V, D]."""
  return views.reshape(len(views), -1, views.shape[-1])
