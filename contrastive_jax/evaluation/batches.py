"""Many inputs through a jitted function, batch by batch."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax.sharding.mesh import batch_sharding, batch_shards, place_whole


def jit_batched(function: Callable, mesh: Mesh) -> Callable:
  """Jits (parameters, batch) -> outputs, with the batch cut over the mesh and the outputs whole."""
  return jax.jit(
    function,
    in_shardings=(None, batch_sharding(mesh)),
    out_shardings=NamedSharding(mesh, PartitionSpec()),
  )


def in_batches(
  function: Callable[[np.ndarray], object], inputs: np.ndarray, batch_size: int, mesh: Mesh
) -> np.ndarray:
  """Applies a function to inputs [N, ...] and joins what comes out, [N, ...].

  The batch size grows to a multiple of the mesh's shards, and the last batch is filled up, so that
  one shape is compiled.
  """
  batch_size = -(-batch_size // batch_shards(mesh)) * batch_shards(mesh)
  outputs = []
  for start in range(0, len(inputs), batch_size):
    batch = inputs[start : start + batch_size]
    filled = np.pad(batch, [(0, batch_size - len(batch))] + [(0, 0)] * (batch.ndim - 1))
    outputs.append(np.asarray(function(place_whole(filled, mesh)))[: len(batch)])
  return np.concatenate(outputs)
