"""MoCo: negatives from a queue of a momentum encoder's embeddings."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.methods.memory import enqueue, entries, queue
from contrastive_jax.methods.method import Method, Momentum, Result, Slot


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCo(Method):
  """MoCo [1], for two views of an image, or for image and text.

      L = mean( log( exp(s q·k) + Σ_n exp(s q·n) ) − s q·k )

  q is one side of a pair, k the other side by the target encoder, and n runs over the queue of the
  sides k of earlier batches, and with `in_batch` over the batch's other k.

  Attributes:
    length: Q, of each queue; a multiple of the batch size.
    momentum: decay of the target encoder.
    scale: inverse temperature; None for the model's.
    in_batch: take the batch's other keys as negatives too, as in CLIP's form; [1] takes the queue
      alone.
    symmetric: average the loss of both directions, with a queue each; [1] has one.
    mesh: the mesh over which the batch is sharded; None for one device.

  References:
    [1] He et al., https://arxiv.org/abs/1911.05722
  """

  name: ClassVar[str] = 'moco'  # in config.objective

  length: int = 65_536
  momentum: float = 0.999
  scale: float | None = None
  in_batch: bool = True
  symmetric: bool = True
  mesh: jax.sharding.Mesh | None = None

  @property
  def sides(self) -> tuple[tuple[str, str], ...]:
    """Pairs of the query's side and the key's."""
    return (('first', 'second'), ('second', 'first'))[: 1 + self.symmetric]

  @property
  def reads(self) -> tuple[str, ...]:
    """Queries, the target's keys, the scale unless it is given, and equal captions."""
    queries, keys = zip(*self.sides, strict=True)
    scale = ('scale',) if self.scale is None else ()
    return (*queries, *(f'target.{key}' for key in keys), *scale, 'same?')

  @property
  def target(self) -> Momentum:
    """The encoder of the keys."""
    return Momentum(self.momentum)

  def memory(self, sizes):
    """A queue per side of keys, and the number of batches written."""
    field = f'config.objective.{self.name}.length'
    queues = {key: queue(self.length, sizes.embed, sizes.batch, field) for _, key in self.sides}
    return queues | {'written': Slot((), dtype=jnp.int32)}

  def loss(self, inputs, heads, memory, key):
    """The mean over both directions; writes the keys."""
    directions = [self._direction(inputs, memory, *side) for side in self.sides]
    writes = {side: inputs[f'target.{side}'] for _, side in self.sides}
    return Result(sum(directions) / len(directions), writes)

  def _direction(self, inputs, memory, query, side):
    scale = inputs['scale'] if self.scale is None else self.scale
    x, y = inputs[query], inputs[f'target.{side}']
    options: dict[str, Any] = {'scale': scale, 'mesh': self.mesh}
    positive = batch = scale * pairwise.paired(x, y)
    rest, _ = pairwise.logsumexp(x, entries(memory[side]), **options)
    if self.in_batch:
      batch, _ = pairwise.logsumexp(x, y, exclude=inputs.get('same'), **options)
    return jnp.mean(jnp.logaddexp(batch, rest) - positive)

  def update(self, memory, writes, heads, step):
    """Replaces the oldest batch of each queue."""
    written = memory['written']
    queues = {side: enqueue(memory[side], rows, written) for side, rows in writes.items()}
    return queues | {'written': written + 1}

  def flops(self, sizes):
    """Three products per pair: keys have no gradient."""
    columns = self.length + (sizes.batch if self.in_batch else 0)
    return 6.0 * len(self.sides) * sizes.batch * columns * sizes.embed
