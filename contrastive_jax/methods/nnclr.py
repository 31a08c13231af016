"""NNCLR: the nearest neighbor of a view in a queue is the positive of the other view."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.methods.memory import enqueue, entries, queue
from contrastive_jax.methods.method import Result, Slot
from contrastive_jax.methods.simsiam import SimSiam
from contrastive_jax.models.transformer import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class NnClr(SimSiam):
  """NNCLR [1]: contrasts the nearest neighbors of one view with predictions of the others.

      L = mean over pairs of views a ≠ b of meanᵢ( log Σⱼ exp(s nₐᵢ·p_bⱼ) − s nₐᵢ·p_bᵢ )

  nₐ is the nearest vector to zₐ / ‖zₐ‖ in a queue of unit projections of first views of earlier
  batches, the support set, and has no gradient; p_b = h(z_b) / ‖h(z_b)‖ for a predictor h. Two
  views have the authors' two directions.

  Projector and predictor are those of `SimSiam`: two hidden layers and batch norm, also after the
  last layer, and for h a hidden layer with batch norm. With projections that no batch norm follows,
  embeddings of the emoji nearly collapse: their uniformity is -0.1 after 400 steps.

  With `decoupled`, j ≠ i in the sum, as in DCL [2]: our combination.

  Attributes:
    outputs: D, width of z.
    predictor_hidden: width of the hidden layer of h.
    length: Q, of the queue; a multiple of the batch size.
    scale: inverse temperature s.
    decoupled: leave the positive out of the denominator.

  References:
    [1] Dwibedi et al., https://arxiv.org/abs/2104.14548; as in the third-party
      vturrisi/solo-learn: solo/methods/nnclr.py, solo/losses/nnclr.py.
    [2] Yeh et al., https://arxiv.org/abs/2110.06848
  """

  outputs: int = 256
  predictor_hidden: int = 4096
  length: int = 98_304
  scale: float = 10.0
  decoupled: bool = False

  def memory(self, sizes):
    """The queue, and the number of batches written."""
    support = queue(self.length, self.outputs, sizes.batch, 'config.objective.nnclr.length')
    return {'support': support, 'written': Slot((), dtype=jnp.int32)}

  def loss(self, inputs, heads, memory, key):
    """The mean over pairs of different views; writes the first view."""
    projections = self.project(inputs, heads)
    views, support = [unit(z) for z in projections], entries(memory['support'])
    predictions = [unit(heads['predictor'](z)) for z in projections]
    neighbors = [self._nearest(view, support) for view in views]
    pairs = itertools.permutations(range(len(views)), 2)
    terms = [self._contrast(neighbors[own], predictions[other]) for own, other in pairs]
    cosines = [jnp.mean(pairwise.paired(*pair)) for pair in zip(views, neighbors, strict=True)]
    metrics = {'similarity': jnp.mean(jnp.stack(cosines))}  # of a view and its neighbor
    return Result(sum(terms) / len(terms), {'support': views[0]}, metrics)

  def _nearest(self, view, support):
    """The nearest vectors [B, D] of the queue."""
    _, rows = pairwise.top_k(jax.lax.stop_gradient(view), support, 1, mesh=self.mesh)
    return support[rows[:, 0]]

  def _contrast(self, nearest, predicted):
    """InfoNCE of neighbors as queries."""
    totals, _ = pairwise.logsumexp(
      nearest, predicted, scale=self.scale, diagonal=not self.decoupled, mesh=self.mesh
    )
    return jnp.mean(totals - self.scale * pairwise.paired(nearest, predicted))

  def update(self, memory, writes, heads, step):
    """Replaces the oldest batch of the queue."""
    written = memory['written']
    support = enqueue(memory['support'], writes['support'], written)
    return {'support': support, 'written': written + 1}

  def flops(self, sizes):
    """The projector and the predictor, a search per view, and three products per pair of views."""
    views, batch = sizes.views, sizes.batch
    products = 2.0 * views * batch * self.length + 6.0 * views * (views - 1) * batch**2
    return super().flops(sizes) + products * self.outputs
