"""Reads of files in blocks that are kept in memory, for reads that lie close to each other."""

import collections
import math
import threading
from concurrent import futures
from typing import Any

from contrastive_jax.data.sources import files

# Bytes per block; a block is a request.
_MIN_BLOCK, _MAX_BLOCK = 2**16, 2**23


class ReadAhead:
  """Takes the place of `files` where a reader reads several stretches of files at a time.

  A stretch is read in blocks; the blocks read last stay in memory. Threads that need the same block
  wait for one request. A copy in another process starts empty.
  """

  def __init__(self, stretch_bytes: float, stretches: int):
    """Reads nothing yet.

    Args:
      stretch_bytes: bytes of a stretch, from whose middle reads come in any order.
      stretches: number of stretches that are read at a time. Memory holds about three times their
        bytes.
    """
    self._size = min(max(math.ceil(stretch_bytes), _MIN_BLOCK), _MAX_BLOCK)
    # A stretch of n blocks may touch n + 1, and goes on into the next while it is left.
    self._capacity = stretches * (math.ceil(stretch_bytes / self._size) + 2)
    self._start()

  def _start(self) -> None:
    self._blocks: collections.OrderedDict = collections.OrderedDict()
    self._lock = threading.Lock()

  def __getstate__(self) -> dict[str, Any]:
    return {'_size': self._size, '_capacity': self._capacity}

  def __setstate__(self, state: dict[str, Any]) -> None:
    vars(self).update(state)
    self._start()

  def read(self, path: str, offset: int, size: int) -> bytes:
    """Reads `size` bytes at an offset; fewer at the end of the file.

    Raises:
      OSError: if the file is missing or cannot be read.
    """
    first, last = offset // self._size, (offset + max(size, 1) - 1) // self._size
    blocks = b''.join(self._block(path, number) for number in range(first, last + 1))
    start = offset - first * self._size
    return blocks[start : start + size]

  def _block(self, path: str, number: int) -> bytes:
    key = path, number
    with self._lock:
      if found := self._blocks.get(key):
        self._blocks.move_to_end(key)
      else:
        asked = self._blocks[key] = futures.Future()
        if len(self._blocks) > self._capacity:
          self._blocks.popitem(last=False)
    if found:
      return found.result()
    try:
      asked.set_result(files.read(path, number * self._size, self._size))
    except BaseException as error:
      with self._lock:
        self._blocks.pop(key, None)
      asked.set_exception(error)
    return asked.result()
