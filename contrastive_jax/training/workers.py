"""The number of processes that prepare batches, if the config leaves it open."""

import os
import socket
import zlib

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from contrastive_jax import data
from contrastive_jax.data.cores import available_cores
from contrastive_jax.runtime import processes

AUTOMATIC = -1  # value of `config.data.workers`
# Cores of a process that dispatches steps, transfers batches and writes checkpoints.
_TRAINER_CORES = 2
# Workers per process; each holds the index of the data and several batches.
_MAX_WORKERS = 32


def worker_count(workers: int, source: data.Source, mesh: Mesh) -> int:
  """Resolves `config.data.workers`; if it is automatic, all processes must call this.

  Args:
    workers: the field; any value but AUTOMATIC is returned.
    source: the training examples.
    mesh: the mesh of the run.
  """
  if workers != AUTOMATIC or source.cached or mesh.devices.flat[0].platform == 'cpu':
    return max(workers, 0)
  cores, sharing = available_cores(), _sharing_processes()
  count = automatic_workers(cores, sharing)
  if jax.process_index() == 0:
    logging.warning(
      'config.data.workers = %d: %d processes prepare batches, of %d cores for %d trainers',
      *(workers, count, cores, sharing),
    )
  return count


def automatic_workers(cores: int, sharing: int) -> int:
  """Returns the number of workers of a trainer on accelerators.

  0, for the two threads of `data.training_batches`, if the trainer's share has no core to spare.

  Args:
    cores: number of cores.
    sharing: number of trainers that share them.
  """
  return min(max(cores // sharing - _TRAINER_CORES, 0), _MAX_WORKERS)


def _sharing_processes() -> int:
  """Returns the number of processes on this machine with the same cores, this one included."""
  affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else ''
  # JAX's integers have 32 bits.
  own = np.array([zlib.crc32(f'{socket.gethostname()} {affinity}'.encode()) >> 1], np.int32)
  return int((processes.gather(own) == own).sum())
