"""Reads of files in blocks that are kept in memory, for reads that lie close to each other."""

import math

from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.recent import Recent

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
    self._blocks = Recent(stretches * (math.ceil(stretch_bytes / self._size) + 2) * self._size)

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
    offset = number * self._size
    return self._blocks.get((path, number), lambda: files.read(path, offset, self._size))
