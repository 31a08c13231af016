"""Batches in shared memory, lent out while any array shows them."""

import functools
import math
import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

# Batches of a worker that are made, wait, or are held by the run. With more, or where the run holds
# many, some go grain's way, which is slower.
_SLOTS = 6


def _shared_file(owner: Any) -> str:
  """The path of an empty file for this process and its workers, which is there while `owner` is.

  On Linux it is of no file system, so that it needs no room in one, and a killed run leaves none.
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
  """Memory in which workers leave the pictures of their batches for the run.

  The same pages serve again and again: to touch new ones would cost more than all else of handing
  over.
  """

  def __init__(self, workers: int, shape: Sequence[int]):
    """Some slots for each worker, each for pictures uint8 of `shape`; Linux alone has them."""
    self._shape = (workers * _SLOTS, *shape)
    self._path = _shared_file(self)
    os.truncate(self._path, self._shape[0] + math.prod(self._shape))

  def __getstate__(self) -> dict[str, Any]:
    return {'_path': self._path, '_shape': self._shape}

  @functools.cached_property
  def _taken(self) -> np.ndarray:
    return np.memmap(self._path, bool, 'r+', shape=self._shape[:1])

  @functools.cached_property
  def _pictures(self) -> np.ndarray:
    return np.memmap(self._path, np.uint8, 'r+', offset=self._shape[0], shape=self._shape)

  def take(self, batch: int) -> tuple[int, np.ndarray] | None:
    """A worker's: the slot of a batch and its pictures, None if an earlier batch still needs it.

    Workers take turns at batches, so each slot has one worker, of one thread.
    """
    slot = batch % len(self._taken)
    if self._taken[slot]:
      return None
    self._taken[slot] = True
    return slot, self._pictures[slot]

  def lend(self, slot: int) -> np.ndarray:
    """The run's: what a worker left; the slot is free when no array shows it any more."""
    return np.asarray(_Lent(self, slot))


class _Lent:
  """What NumPy keeps while there is an array of the slot, or a view of one."""

  def __init__(self, slots: Slots, slot: int):
    self._slots, self._slot = slots, slot
    self.__array_interface__ = slots._pictures[slot].__array_interface__

  def __del__(self):
    self._slots._taken[self._slot] = False
