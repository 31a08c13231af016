"""Methods for InfoNCE over a sharded batch, and the matmuls of dense and of the streamed one.

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
BLOCK_SIZE = 1024  # the default of pairwise


def dense(image, text, scale, mesh):
  """S [B, B] materialized; the compiler shards it: [B / N, B] per device."""
  del mesh  # The shardings of the arguments determine the compiler's.
  scores = _scores(scale, image, text)
  rows, columns = jax.nn.logsumexp(scores, 1), jax.nn.logsumexp(scores, 0)
  return jnp.mean((rows + columns) / 2 - scale * pairwise.paired(image, text))


def all_gather(image, text, scale, mesh):
  """open_clip's `local_loss` with `gather_with_grad`.

  Each device gathers all embeddings, and computes its rows of S and of Sᵀ, [B / N, B] each, so S is
  computed twice. The gradient of the all-gather is a reduce-scatter.
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
  """S in blocks, on a ring of groups of devices."""
  return losses.info_nce(image, text, scale=scale, block_size=BLOCK_SIZE, mesh=mesh)


def ring(image, text, scale, mesh):
  """S in blocks, on a ring of single devices."""
  return ours(image, text, scale, pairwise.Ring(mesh, gather_bytes=0))


METHODS = {'dense': dense, 'all-gather': all_gather, 'ours': ours, 'ring': ring}


def compile_gradients(method, batch, mesh):
  """Compiles the value and the gradients of image, text and scale."""
  rows, whole = batch_sharding(mesh), jax.NamedSharding(mesh, jax.P())
  step = jax.jit(
    jax.value_and_grad(functools.partial(method, mesh=mesh), (0, 1, 2)),
    out_shardings=(whole, (rows, rows, whole)),
  )
  scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
  return step.lower(*_embeddings(batch, rows), scale).compile()


def compile_four_matmuls(batch, mesh):
  """Compiles only the four block matmuls of `ours`, as a function of image and text."""

  def local(image, text):
    # The blocks of `pairwise`.
    height = min(len(image), BLOCK_SIZE)
    width = min(len(text), BLOCK_SIZE**2 // (2 * height))
    rows, columns = len(image) // height, len(text) // width

    def visit(total, index):
      x = lax.dynamic_slice_in_dim(image, index // columns % rows * height, height)
      y = lax.dynamic_slice_in_dim(text, index % columns * width, width)
      # The barrier keeps the matmuls in the loop when a device has a single block.
      y, total = lax.optimization_barrier((y, total))
      # Each product depends on the previous one, so that none is eliminated.
      scores = _matmul(x, y, 1, 1)
      x_part = _matmul(scores, y, 1, 0)
      scores = _matmul(x_part, y, 1, 1)
      # Transposed, as in `ours`: on a CPU the plain form takes 1.6 times as long.
      y_part = _matmul(lax.optimization_barrier(x.T), scores, 1, 0)
      return total + lax.optimization_barrier(y_part).T, None

    # Local columns stand for those of all devices, without communication.
    visits = jnp.arange(rows * columns * mesh.size)
    total = lax.scan(visit, jnp.zeros((width, EMBEDDING), jnp.float32), visits)[0]
    return total.sum(0, keepdims=True)

  batch_spec = jax.P('data')
  step = jax.shard_map(local, mesh=mesh, in_specs=batch_spec, out_specs=batch_spec, check_vma=False)
  return jax.jit(step).lower(*_embeddings(batch, batch_sharding(mesh))).compile()


def compile_three_matmuls(batch, mesh):
  """Compiles only the three matmuls of `dense`, as a function of image and text."""

  def multiply(image, text):
    scores = _matmul(image, text, 1, 1)
    return _matmul(scores, text, 1, 0), _matmul(scores, image, 0, 0)

  rows = batch_sharding(mesh)
  step = jax.jit(multiply, out_shardings=(rows, rows))
  return step.lower(*_embeddings(batch, rows)).compile()


def _embeddings(batch, sharding):
  return (jax.ShapeDtypeStruct((batch, EMBEDDING), jnp.float32, sharding=sharding),) * 2


def _scores(scale, image, text):
  # The scale multiplies embeddings, as in open_clip: B × D products, and no copy of S.
  return _matmul(scale * image, text, 1, 1)


def _matmul(a, b, a_axis, b_axis):
  return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), precision='highest')
