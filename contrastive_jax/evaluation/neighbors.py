"""Nearest neighbors by inner product, exact."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax.evaluation.batches import one_device
from contrastive_jax.losses import pairwise
from contrastive_jax.sharding.mesh import place_padded


def nearest(
  queries: np.ndarray, candidates: np.ndarray, k: int, *, mesh: Mesh | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """The k candidates of greatest inner product with each query.

  Args:
    queries: [Q, D]
    candidates: [N, D]
    k: number of candidates per query, at most N.
    mesh: mesh over which queries and candidates are sharded; None for one device.

  Returns:
    [Q, k] products, float32, in descending order, and [Q, k] rows of the candidates, int32; of
    equal products the lower row first. NaN is never near: −inf and −1 where fewer than k products
    are numbers.

  >>> nearest(np.eye(3), np.eye(3)[::-1], 1)[1].tolist()
  [[2], [1], [0]]
  """
  mesh = mesh or one_device()
  x, y = (place_padded(np.asarray(a, np.float32), mesh) for a in (queries, candidates))
  real = place_padded(np.ones(len(candidates), bool), mesh, fill=False)
  found = _finder(mesh, k)(x, y, real)
  scores, rows = (np.asarray(a)[: len(queries)] for a in found)
  return scores, rows


@functools.cache
def _finder(mesh: Mesh, k: int) -> Callable:
  def find(x, y, real):
    return pairwise.top_k(x, y, k, _numbers, columns=real, mesh=mesh)

  return jax.jit(find, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _numbers(scores, rows, real):
  """The scores of candidates; −inf for those of padding, and for NaN."""
  return jnp.where(real & ~jnp.isnan(scores), scores, -jnp.inf)
