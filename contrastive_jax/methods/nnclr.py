"""NNCLR: the nearest neighbor of a view in a queue is the positive of the other view."""

import dataclasses

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.methods.memory import enqueue, entries, queue
from contrastive_jax.methods.method import Method, Result, Slot
from contrastive_jax.models.heads import define_head, head_flops
from contrastive_jax.models.transformer import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class NnClr(Method):
  """NNCLR [1]: contrasts the nearest neighbors of one view with predictions of the other.

      L = ½ meanᵢ( log Σⱼ exp(s n(xᵢ)·h(yⱼ)) − s n(xᵢ)·h(yᵢ) ) + ½ (the same of y and x)

  x and y are two views of an image, n(x) the nearest vector to x in a queue of first views of
  earlier batches, the support set, and h a predictor to unit vectors. Neighbors have no gradient.

  With `decoupled`, j ≠ i in the sum, as in DCL [2]: our combination.

  Attributes:
    length: Q, of the queue; a multiple of the batch size. [1] has 98,304.
    hidden: width of the hidden layer of h.
    scale: inverse temperature s; None for the model's. [1] has 10.
    decoupled: leave the positive out of the denominator.
    mesh: the mesh over which the batch is sharded; None for one device.

  References:
    [1] Dwibedi et al., https://arxiv.org/abs/2104.14548; as in the third-party
      vturrisi/solo-learn: solo/methods/nnclr.py, solo/losses/nnclr.py.
    [2] Yeh et al., https://arxiv.org/abs/2110.06848
  """

  length: int = 98_304
  hidden: int = 4096
  scale: float | None = None
  decoupled: bool = False
  mesh: jax.sharding.Mesh | None = None

  @property
  def reads(self) -> tuple[str, ...]:
    """Two views, and the scale unless it is given."""
    return ('view.0', 'view.1', *(('scale',) if self.scale is None else ()))

  def heads(self, sizes):
    """The predictor."""
    return {'predictor': define_head(sizes.embed, (self.hidden,), sizes.embed)}

  def memory(self, sizes):
    """The queue, and the number of batches written."""
    if self.decoupled and sizes.batch < 2:
      raise ValueError('decoupled with config.batch_size = 1 has no negatives; use 2 or more')
    field = 'config.objective.nnclr.length'
    support = queue(self.length, sizes.embed, sizes.batch, field)
    return {'support': support, 'written': Slot((), dtype=jnp.int32)}

  def loss(self, inputs, heads, memory, key):
    """The mean over both directions; writes the first view."""
    scale = inputs['scale'] if self.scale is None else self.scale
    views, support = (inputs['view.0'], inputs['view.1']), entries(memory['support'])
    terms, similarities = [], []
    for view, other in (views, views[::-1]):
      _, found = pairwise.top_k(jax.lax.stop_gradient(view), support, 1, mesh=self.mesh)
      nearest, predicted = support[found[:, 0]], unit(heads['predictor'](other))
      totals, _ = pairwise.logsumexp(
        nearest, predicted, scale=scale, diagonal=not self.decoupled, mesh=self.mesh
      )
      terms.append(jnp.mean(totals - scale * pairwise.paired(nearest, predicted)))
      similarities.append(jnp.mean(pairwise.paired(view, nearest)))
    metrics = {'similarity': (similarities[0] + similarities[1]) / 2}  # of a view and its neighbor
    return Result((terms[0] + terms[1]) / 2, {'support': views[0]}, metrics)

  def update(self, memory, writes, heads, step):
    """Replaces the oldest batch of the queue."""
    written = memory['written']
    support = enqueue(memory['support'], writes['support'], written)
    return {'support': support, 'written': written + 1}

  def flops(self, sizes):
    """The search of two views, three products per pair, and the predictor of both views."""
    pairs = 4.0 * sizes.batch * self.length + 12.0 * sizes.batch**2
    head = head_flops(sizes.embed, (self.hidden,), sizes.embed, 2 * sizes.batch)
    return pairs * sizes.embed + head
