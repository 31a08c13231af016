"""Batches in shared memory, reserved as long as any array refers to them.

A slot is released by `__del__` of the base object that NumPy keeps alive with the views of an
array, so a batch reaches the run without a copy.
"""

import functools
import math
import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

# Batches per worker that are in preparation, waiting, or held by the run. Further batches take
# grain's own path, which is slower.
_SLOTS_PER_WORKER = 6


def _shared_file(owner: Any) -> str:
  """Returns the path of an empty file, shared with worker processes, that lives as long as `owner`.

  On Linux the file lies in memory: it takes no disk space, and a killed run leaves none behind.
  """
  if not hasattr(os, 'memfd_create'):
    file, path = tempfile.mkstemp()
    os.close(file)
    weakref.finalize(owner, os.unlink, path)
    return path
  file = os.memfd_create('batches')
  weakref.finalize(owner, os.close, file)
  return f'/proc/{os.getpid()}/fd/{file}'


class Slots:
  """Shared memory in which workers pass the images of their batches to the run.

  Pages are reused: faulting in new ones would dominate the cost of the handover.
  """

  def __init__(self, workers: int, shape: Sequence[int]):
    """Allocates slots for images of `shape`, uint8; needs Linux."""
    self._shape = (workers * _SLOTS_PER_WORKER, *shape)
    self._path = _shared_file(self)
    os.truncate(self._path, self._shape[0] + math.prod(self._shape))

  def __getstate__(self) -> dict[str, Any]:
    return {'_path': self._path, '_shape': self._shape}

  @functools.cached_property
  def _taken(self) -> np.ndarray:
    return np.memmap(self._path, bool, 'r+', shape=self._shape[:1])

  @functools.cached_property
  def _images(self) -> np.ndarray:
    return np.memmap(self._path, np.uint8, 'r+', offset=self._shape[0], shape=self._shape)

  def take(self, batch: int) -> tuple[int, np.ndarray] | None:
    """Takes the slot of a batch, in a worker; returns None if an earlier batch still holds it.

    Workers take turns at batches, so each slot belongs to one worker with one thread.
    """
    slot = batch % len(self._taken)
    if self._taken[slot]:
      return None
    self._taken[slot] = True
    return slot, self._images[slot]

  def lend(self, slot: int) -> np.ndarray:
    """Returns a slot's images, in the run; the slot is freed with the last array that uses it."""
    return np.asarray(_Lease(self, slot))


class _Lease:
  """The base object of arrays over a slot; NumPy keeps it alive with any of their views."""

  def __init__(self, slots: Slots, slot: int):
    self._slots, self._slot = slots, slot
    self.__array_interface__ = slots._images[slot].__array_interface__

  def __del__(self):
    self._slots._taken[self._slot] = False
