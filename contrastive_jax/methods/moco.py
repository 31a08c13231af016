"""MoCo: negatives from a queue of a momentum encoder's embeddings."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.methods import memory
from contrastive_jax.methods.method import Method, Momentum, Paper, Result, Slot

PAPER = Paper(
  title='Momentum Contrast for Unsupervised Visual Representation Learning',
  url='https://arxiv.org/abs/1911.05722',
  says='a queue of a momentum encoder keeps many consistent negatives at a small batch',
  grade='P',
)


def moco(
  *,
  length: int = 65_536,
  momentum: float = 0.999,
  scale: float | None = None,
  in_batch: bool = True,
  symmetric: bool = True,
  mesh: jax.sharding.Mesh | None = None,
) -> Method:
  """MoCo [1], for two views of an image, or for image and text.

      L = mean( log( exp(s q·k) + Σ_n exp(s q·n) ) − s q·k )

  q is one side of a pair, k the other side by the target encoder, and n runs over the queue of the
  sides k of earlier batches, and with `in_batch` over the batch's other k.

  Args:
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
  sides = (('first', 'second'), ('second', 'first'))[: 1 + symmetric]

  def slots(sizes):
    queues = {
      key: memory.queue(length, sizes.embed, sizes.batch, 'config.objective.moco.length')
      for _, key in sides
    }
    return queues | {'written': Slot((), dtype=jnp.int32)}

  def loss(inputs, heads, own, key):
    s = inputs['scale'] if scale is None else scale

    def direction(query, positive):
      x, y = inputs[query], inputs[f'target.{positive}']
      positive_score = s * pairwise.paired(x, y)
      rest, _ = pairwise.logsumexp(x, memory.entries(own[positive]), scale=s, mesh=mesh)
      if in_batch:
        batch, _ = pairwise.logsumexp(x, y, scale=s, exclude=inputs.get('same'), mesh=mesh)
      else:
        batch = positive_score
      return jnp.mean(jnp.logaddexp(batch, rest) - positive_score)

    total = sum(direction(*side) for side in sides) / len(sides)
    return Result(total, {key: inputs[f'target.{key}'] for _, key in sides})

  def update(own, writes, heads, step):
    queues = {key: memory.enqueue(own[key], writes[key], own['written']) for key in writes}
    return queues | {'written': own['written'] + 1}

  def flops(sizes):
    # Keys have no gradient: three products per pair.
    columns = length + (sizes.batch if in_batch else 0)
    return 6.0 * len(sides) * sizes.batch * columns * sizes.embed

  return Method(
    reads=(
      *(query for query, _ in sides),
      *(f'target.{key}' for _, key in sides),
      *(('scale',) if scale is None else ()),
      'same?',
    ),
    loss=loss,
    memory=slots,
    update=update,
    target=Momentum(momentum),
    flops=flops,
  )
