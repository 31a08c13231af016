"""Recall and neighbors by contrastive_jax and by faiss, and the product that they need.

Each is a function of images and texts [N, D] that returns what it found. Ours has a device per
core, faiss its default threads.
"""

import functools

import numpy as np

KS = (1, 5, 10)
NEIGHBORS = 20
BLOCK = 1024, 512  # the default of pairwise


def recall_ours(image, text) -> list[float]:
  """Recalls from images to texts, and from texts to images."""
  from contrastive_jax.evaluation.retrieval import hits_both_ways

  ids = range(len(image))
  ways = hits_both_ways(image, text, ids, ids, KS, mesh=_mesh())
  return [float(chances.mean()) for way in ways for chances in way.values()]


def recall_faiss(image, text) -> list[float]:
  """The same, by exact search of the first ten."""
  found = []
  for queries, candidates in ((image, text), (text, image)):
    _, rows = _search(queries, candidates, max(KS))
    right = rows == np.arange(len(queries))[:, None]
    found += [float(right[:, :k].any(axis=1).mean()) for k in KS]
  return found


def neighbors_ours(image, text) -> list[float]:
  """The mean product of images with their 20th nearest text."""
  from contrastive_jax.evaluation.neighbors import nearest

  scores, _ = nearest(image, text, NEIGHBORS, mesh=_mesh())
  return [float(scores[:, -1].mean())]


def neighbors_faiss(image, text) -> list[float]:
  """The same, by exact search."""
  scores, _ = _search(image, text, NEIGHBORS)
  return [float(scores[:, -1].mean())]


def product(image, text) -> list[float]:
  """All products of images and texts, in the blocks of `ranks`, dropped at once."""
  import jax
  import jax.numpy as jnp
  from jax import lax

  from contrastive_jax.losses.pairwise import matmul, ring
  from contrastive_jax.sharding.mesh import place_padded

  mesh = _mesh()

  def visit(row_span, column_span, rows, row_sums, columns, column_sums):
    scores = lax.optimization_barrier(matmul.matmul(rows, columns, 1, 1))
    return row_sums + scores[:, 0], column_sums

  def multiply(image, text):
    sums = jnp.zeros(len(image)), jnp.zeros(len(text))
    options = {'block_shape': BLOCK, 'axes': ('data',), 'shards': mesh.size}
    return ring.ring_scan(visit, image, sums[0], text, sums[1], **options)[0]

  rows = jax.P('data')
  step = jax.shard_map(multiply, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
  jax.block_until_ready(jax.jit(step)(place_padded(image, mesh), place_padded(text, mesh)))
  return []


METHODS = {
  'recall/ours': recall_ours,
  'recall/faiss': recall_faiss,
  'product/ours': product,
  'neighbors/ours': neighbors_ours,
  'neighbors/faiss': neighbors_faiss,
}


def _search(queries, candidates, k):
  """Products and rows of the k nearest candidates, by faiss."""
  import faiss

  index = faiss.IndexFlatIP(candidates.shape[1])
  index.add(candidates)
  return index.search(queries, k)


@functools.cache
def _mesh():
  from contrastive_jax.runtime import cpu
  from contrastive_jax.sharding.mesh import make_mesh

  cpu.split_cores()
  return make_mesh()
