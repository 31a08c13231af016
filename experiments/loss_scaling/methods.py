"""Three ways to InfoNCE over a sharded batch, and the four matmuls of the streamed one, alone.

Shape letters: B batch, D embedding, N devices, b rows of a block.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import losses
from contrastive_jax.losses import pairwise
from contrastive_jax.sharding.mesh import batch_sharding

EMBEDDING = 512
BLOCK_SIZE = 1024  # what pairwise chooses by default


def dense(image, text, scale, mesh):
  """S [B, B] written out; the compiler shards it: [B / N, B] a device."""
  del mesh  # The arguments' shardings are all that the compiler needs.
  scores = _scores(scale, image, text)
  rows, columns = jax.nn.logsumexp(scores, 1), jax.nn.logsumexp(scores, 0)
  return jnp.mean((rows + columns) / 2 - scale * pairwise.paired(image, text))


def all_gather(image, text, scale, mesh):
  """open_clip's `local_loss` with `gather_with_grad`.

  Each device gathers all embeddings, and has its rows of S and its rows of Sᵀ, [B / N, B] both: S
  is multiplied twice in the world. The gradient of the gathering is a sum, scattered.
  """

  def local(image, text, scale):
    rows = _scores(scale, image, lax.all_gather(text, 'data', tiled=True))
    columns = _scores(scale, text, lax.all_gather(image, 'data', tiled=True))
    each = (jax.nn.logsumexp(rows, 1) + jax.nn.logsumexp(columns, 1)) / 2
    return lax.pmean(jnp.mean(each - scale * pairwise.paired(image, text)), 'data')

  batch, whole = jax.P('data'), jax.P()
  return jax.shard_map(local, mesh=mesh, in_specs=(batch, batch, whole), out_specs=whole)(
    image, text, scale
  )


def ours(image, text, scale, mesh):
  """S in blocks, on a ring of devices."""
  return losses.info_nce(image, text, scale=scale, block_size=BLOCK_SIZE, mesh=mesh)


METHODS = {'dense': dense, 'all-gather': all_gather, 'ours': ours}


def compile_gradients(method, batch, mesh):
  """The program for the value and the gradients of image, text and scale; nothing is executed."""
  rows, whole = batch_sharding(mesh), jax.NamedSharding(mesh, jax.P())
  step = jax.jit(
    jax.value_and_grad(functools.partial(method, mesh=mesh), (0, 1, 2)),
    out_shardings=(whole, (rows, rows, whole)),
  )
  scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
  return step.lower(*_embeddings(batch, rows), scale).compile()


def compile_four_matmuls(batch, mesh):
  """The program for the four block matmuls of `ours` and nothing else; it takes image and text."""

  def local(image, text):
    size = min(BLOCK_SIZE, len(image))
    count = len(image) // size

    def visit(total, index):
      x = lax.dynamic_slice_in_dim(image, index // count % count * size, size)
      y = lax.dynamic_slice_in_dim(text, index % count * size, size)
      # Where a device has one block, all visits are the same: the barrier keeps them in the loop.
      y, total = lax.optimization_barrier((y, total))
      # Each needs the one before, so that the compiler can leave none out.
      scores = _matmul(x, y, 1, 1)
      x_part = _matmul(scores, y, 1, 0)
      scores = _matmul(x_part, y, 1, 1)
      # Turned, as `ours` does: on a CPU the plain form takes 1.6 times as long.
      y_part = _matmul(lax.optimization_barrier(x.T), scores, 1, 0)
      return total + lax.optimization_barrier(y_part).T, None

    # A device's columns stand for those of all devices: nothing travels.
    visits = jnp.arange(count * count * mesh.size)
    return lax.scan(visit, jnp.zeros((size, EMBEDDING), jnp.float32), visits)[0]

  batch_spec = jax.P('data')
  step = jax.shard_map(local, mesh=mesh, in_specs=batch_spec, out_specs=batch_spec, check_vma=False)
  return jax.jit(step).lower(*_embeddings(batch, batch_sharding(mesh))).compile()


def _embeddings(batch, sharding):
  return (jax.ShapeDtypeStruct((batch, EMBEDDING), jnp.float32, sharding=sharding),) * 2


def _scores(scale, image, text):
  # As open_clip writes it: a scale within costs B × D products; outside, B × B and a copy of S.
  return _matmul(scale * image, text, 1, 1)


def _matmul(a, b, a_axis, b_axis):
  return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), precision='highest')
