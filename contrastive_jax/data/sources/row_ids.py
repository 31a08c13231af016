"""Ids of examples, from the rows of the files that hold them."""

import bisect
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class RowRange(NamedTuple):
  """Consecutive rows of a file.

  Attributes:
    file: its path, or another name that no other file has.
    start: the first row.
    stop: the row after the last.
  """

  file: str
  start: int
  stop: int

  @property
  def size(self) -> int:
    """Number of rows."""
    return self.stop - self.start


def row_ranges(records: Sequence) -> list[RowRange]:
  """Returns `records.row_ranges`; without it, the records are a file of their own."""
  own = getattr(records, 'row_ranges', None)
  return [RowRange(f'records at {id(records)}', 0, len(records))] if own is None else own


def whole_files(paths: Iterable[str], lengths: Iterable[int]) -> list[RowRange]:
  """Returns the row ranges of records that are all rows of some files."""
  return [RowRange(path, 0, int(length)) for path, length in zip(paths, lengths, strict=True)]


def cut(ranges: Iterable[RowRange], start: int, stop: int) -> list[RowRange]:
  """Returns the row ranges of the records from `start` to `stop`."""
  found, first = [], 0
  for each in ranges:
    low, high = max(start - first, 0), min(stop - first, each.size)
    if low < high:
      found.append(RowRange(each.file, each.start + low, each.start + high))
    first += each.size
  return found


class RowIds:
  """Numbers the distinct rows of records: records of one row have one id.

  Attributes:
    rows: number of distinct rows; every id is below it.
  """

  def __init__(self, ranges: Sequence[RowRange]):
    """Numbers the rows file by file, in the order in which the files first appear."""
    files: dict[str, list[RowRange]] = {}
    for each in ranges:
      files.setdefault(each.file, []).append(each)
    firsts, self.rows = {}, 0
    for own in files.values():
      end = 0  # of the rows of the file that have an id
      for each in sorted(own, key=lambda each: each.start):
        new = max(each.start, end)
        firsts[each] = self.rows - (new - each.start)
        self.rows += max(each.stop - new, 0)
        end = max(end, each.stop)
    self._firsts = [firsts[each] for each in ranges]
    self._starts = [0, *itertools.accumulate(each.size for each in ranges)]

  def __getitem__(self, number: int) -> int:
    """Returns the id of a record by its number."""
    which = bisect.bisect_right(self._starts, number) - 1
    return self._firsts[which] + number - self._starts[which]
