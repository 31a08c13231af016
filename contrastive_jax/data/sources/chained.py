"""Records of several splits in turn."""

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

from contrastive_jax.data.sources.row_ids import row_ranges
from contrastive_jax.data.sources.source import fields_of, location_of, reading_ahead


class Chained(Sequence):
  """The records of several splits, one split after another.

  Attributes:
    ranges: the numbers of the records of each split.
    row_ranges: the rows of files that the splits consist of.
  """

  def __init__(self, splits: Sequence[Sequence[Any]]):
    self._splits = splits
    self._ends = [*itertools.accumulate(map(len, splits))]
    self.ranges = [
      range(end - len(split), end) for split, end in zip(splits, self._ends, strict=True)
    ]
    self.row_ranges = [each for split in splits for each in row_ranges(split)]

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, number: int) -> Any:
    split, own = self._locate(number)
    return split[own]

  def fields(self, number: int) -> Any:
    """Returns a record without its image."""
    return fields_of(*self._locate(number))

  def where(self, number: int) -> str:
    """Returns the file of a record and its name there."""
    return location_of(*self._locate(number))

  def reading_ahead(self, stretch: int, stretches: int) -> 'Chained':
    """Returns splits that read stretches of files in blocks, where their format allows."""
    return Chained([reading_ahead(split, stretch, stretches) for split in self._splits])

  def _locate(self, number: int) -> tuple[Sequence[Any], int]:
    which = bisect.bisect_right(self._ends, number)
    return self._splits[which], number - self.ranges[which].start
