"""Keeps the results that were asked for last, up to a number of bytes."""

import collections
import threading
from collections.abc import Callable, Hashable
from concurrent import futures
from typing import Any


class Recent:
  """Results by key, of which those asked for last stay in memory.

  Threads that ask for the same result wait for one call. A copy in another process starts empty.
  """

  def __init__(self, capacity: int, size_of: Callable[[Any], int] = len):
    """Keeps nothing yet.

    Args:
      capacity: bytes of the results to keep; the last one is kept whatever its size.
      size_of: result -> its bytes.
    """
    self._capacity, self._size_of = capacity, size_of
    self._start()

  def _start(self) -> None:
    self._results: collections.OrderedDict = collections.OrderedDict()
    self._sizes: dict[Hashable, int] = {}
    self._size = 0
    self._lock = threading.Lock()

  def __getstate__(self) -> dict[str, Any]:
    return {'_capacity': self._capacity, '_size_of': self._size_of}

  def __setstate__(self, state: dict[str, Any]) -> None:
    vars(self).update(state)
    self._start()

  def __len__(self) -> int:
    return len(self._results)

  def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
    """Returns the result of a key, from `make` unless it is in memory; an error is not kept."""
    with self._lock:
      if found := self._results.get(key):
        self._results.move_to_end(key)
      else:
        asked = self._results[key] = futures.Future()
    if found:
      return found.result()
    try:
      result = make()
    except BaseException as error:
      with self._lock:
        self._results.pop(key, None)
      asked.set_exception(error)
    else:
      asked.set_result(result)
      with self._lock:
        self._add(key, self._size_of(result))
    return asked.result()

  def _add(self, key: Hashable, size: int) -> None:
    """Counts a result, and drops those asked for the longest ago; unfinished ones have no size."""
    self._sizes[key] = size
    self._size += size
    while self._size > self._capacity and len(self._sizes) > 1:
      oldest = next(key for key in self._results if key in self._sizes)
      del self._results[oldest]
      self._size -= self._sizes.pop(oldest)
