"""Applies jitted functions to many inputs, batch by batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax.sharding.mesh import (
  batch_sharding,
  batch_shards,
  local_rows,
  make_mesh,
  on_mesh,
  place_rows,
)


def jit_batched(function: Callable, mesh: Mesh) -> Callable:
  """Jits (parameters, batch) -> outputs: shards the batch over the mesh, replicates the outputs."""
  return jax.jit(
    on_mesh(function, mesh),
    in_shardings=(None, batch_sharding(mesh)),
    out_shardings=NamedSharding(mesh, PartitionSpec()),
  )


def in_batches(function: Callable[[Any], Any], inputs: Any, batch_size: int, mesh: Mesh) -> Any:
  """Applies a function to inputs [N, ...] batch by batch; returns outputs [N, ...].

  Inputs and outputs may be trees. Inputs may be `data.DecodedImages` or `data.DecodedPatches`, of
  which a process decodes only its rows. The batch size is rounded up to a multiple of the batch
  shards, and the last batch is padded, so a single shape is compiled. The devices compute a batch
  while the next one is read and transferred.
  """
  batch_size = _rounded(batch_size, mesh)
  size = len(jax.tree.leaves(inputs)[0])
  own = local_rows(mesh, batch_size)

  def cut(array, start):
    rows = own[own < size - start]
    missing = len(own) - len(rows)

    def pad(part):
      return np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else part

    return jax.tree.map(pad, array[start + rows])  # patches are a tree

  outputs: list[Any] = []
  computing = None
  for start in range(0, size, batch_size):
    batch = jax.tree.map(partial(cut, start=start), inputs)
    dispatched = function(place_rows(batch, mesh, batch_size))
    if computing is not None:
      outputs.append(jax.tree.map(np.asarray, computing))
    computing = dispatched
  outputs.append(jax.tree.map(np.asarray, computing))
  return jax.tree.map(lambda *parts: np.concatenate(parts)[:size], *outputs)


def own_rows(size: int, batch_size: int, mesh: Mesh) -> np.ndarray:
  """Returns the rows of `size` inputs that this process reads in `in_batches`."""
  batch_size = _rounded(batch_size, mesh)
  rows = np.arange(0, size, batch_size)[:, None] + local_rows(mesh, batch_size)
  return rows[rows < size]


def _rounded(batch_size: int, mesh: Mesh) -> int:
  return -(-batch_size // batch_shards(mesh)) * batch_shards(mesh)


def place_copies(tree: Any, mesh: Mesh) -> Any:
  """Replicates arrays, which every process holds in full, on each device."""
  whole = NamedSharding(mesh, PartitionSpec())

  def put(array):
    return jax.make_array_from_process_local_data(whole, array, array.shape)

  return jax.tree.map(put, tree)


def one_device() -> Mesh:
  """Returns a mesh of one device."""
  return make_mesh('data:1', jax.local_devices()[:1])
