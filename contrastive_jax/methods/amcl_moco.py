"""AMCL on MoCo: several projections and temperatures per pair, with negatives from queues."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from contrastive_jax.losses.views.adaptive import Vectors
from contrastive_jax.methods.amcl import Amcl
from contrastive_jax.methods.memory import enqueue, entries, queue
from contrastive_jax.methods.method import Momentum, Slot
from contrastive_jax.models.heads import head_flops
from contrastive_jax.models.transformer import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmclMoCo(Amcl):
  """AMCL [1] on MoCo: the loss of `Amcl`, with negatives from queues.

  The anchors are the projections of the first view, their positives those of the second by the
  target encoder, and the negatives the keys of earlier batches, in a queue per projection. φ of the
  queues is computed in each step. The authors' code averages this with the same for the positives
  as anchors, whose negatives train φ alone.

  Attributes:
    length: Q, of each queue; a multiple of the batch size.
    momentum: decay of the target encoder and its projectors.

  References:
    [1] Wang et al., https://arxiv.org/abs/2310.05615; formulas as in LeiWangR/cl: amcl/losses.py,
      amcl/models.py.
  """

  length: int = 4096
  momentum: float = 0.99

  reads = ('features_of_view.0', 'target.features_of_view.1')

  @property
  def target(self) -> Momentum:
    """The encoder of the keys."""
    return Momentum(self.momentum)

  def memory(self, sizes):
    """A queue per projection, and the number of batches written."""
    field = 'config.objective.amcl_moco.length'
    made: dict[str, Any] = {'written': Slot((), dtype=jnp.int32)}
    for n in range(self.projectors):
      made[f'keys_{n}'] = queue(self.length, self.outputs, sizes.batch, field)
    return made

  def loss(self, inputs, heads, memory, key):
    """The sum over the projections of the mean over queries; writes the keys."""
    of_query, of_key = (inputs[read] for read in self.reads)
    names = [f'keys_{n}' for n in range(self.projectors)]
    queries = unit(self.project(of_query, heads))
    keys = unit(self.project(of_key, heads, 'target.'))
    queues = jnp.stack([entries(memory[name]) for name in names])
    vectors = (Vectors(z, heads['temperature'](z)) for z in (queries, keys, queues))
    result = self.contrast(*vectors, k=min(self.k, self.length))
    return result._replace(writes=dict(zip(names, keys, strict=True)))

  def update(self, memory, writes, heads, step):
    """Replaces the oldest batch of each queue."""
    written = memory['written']
    queues = {name: enqueue(memory[name], rows, written) for name, rows in writes.items()}
    return queues | {'written': written + 1}

  def flops(self, sizes):
    """The heads, those of keys forward alone, and the products with the queues."""
    B, k = sizes.batch, min(self.k, self.length)
    widths = sizes.image_features, (self.hidden,), self.outputs
    pairs = 4.0 * B * self.length + 8.0 * B * k
    return self.projectors * (
      pairs * self.outputs + head_flops(*widths, 4 / 3 * B)
    ) + self.phi_flops(sizes, 2 * B + self.length)
