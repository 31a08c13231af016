"""Mixtures of several sources, whose shares hold in any stretch of the order."""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import grain

from contrastive_jax.data.sources.row_ids import RowIds
from contrastive_jax.data.sources.source import Source

# Shares are integers; the smallest one has this value.
_MIN_SHARE = 100


def parse_mixture(name: str) -> list[tuple[str, float]]:
  """Parses 'A*0.7+B*0.3' into names and weights; returns an empty list for a single source.

  >>> parse_mixture('jsonl:a.jsonl*3+webdataset:b/*.tar*1')
  [('jsonl:a.jsonl', 3.0), ('webdataset:b/*.tar', 1.0)]
  >>> parse_mixture('webdataset:b/*.tar')
  []

  Raises:
    ValueError: if only some parts have weights.
  """
  weight = r'\*(\d+(?:\.\d*)?|\.\d+)'
  if not re.search(rf'{weight}\+', name):
    return []
  part = f'(.+?){weight}'
  if not re.fullmatch(rf'{part}(?:\+{part})+', name):
    raise ValueError(
      f'config.data.name = {name!r} has a weight, but not after each part; write A*0.7+B*0.3'
    )
  return [(inner, float(weight)) for inner, weight in re.findall(rf'{part}(?:\+|$)', name)]


class Mixture:
  """Examples of several sources by number; the order takes no memory.

  An epoch shows every example at least once; it repeats those of sources that are small for their
  weight. A row that several sources have keeps one id.

  Attributes:
    cached: False; the sources may cache their examples, but decoded images are not cached.
    rows: number of distinct rows of the sources' splits; every `id` is below it.
  """

  cached = False

  def __init__(self, sources: Sequence[Source], weights: Sequence[float]):
    """Mixes sources.

    Args:
      sources: the sources.
      weights: their shares up to a factor, rounded to a hundredth of the smallest weight.

    Raises:
      ValueError: if a weight is 0 or less, or a source is empty.
    """
    if not all(0 < weight < math.inf for weight in weights):
      raise ValueError(f'a mixture has the weights {list(weights)}; use numbers above 0')
    if not all(map(len, sources)):
      raise ValueError(f'a mixture has sources of {[*map(len, sources)]} examples; drop empty ones')
    shares = [round(_MIN_SHARE * weight / min(weights)) for weight in weights]
    lengths = [len(source) for source in sources]
    # At any length, a source may lag behind its share by one example per other source.
    late = len(sources) - 1
    self._length = max(
      -(-(length + late) * sum(shares) // share)
      for length, share in zip(lengths, shares, strict=True)
    )
    self._sources = sources
    self._ids = RowIds([each for source in sources for each in source.row_ranges])
    self.rows = self._ids.rows
    splits = [sum(each.size for each in source.row_ranges) for source in sources]
    self._starts = [0, *itertools.accumulate(splits)]
    self._mixed = grain.MapDataset.mix(
      [
        grain.MapDataset.range(length).map(lambda index, number=number: (number, index)).repeat()
        for number, length in enumerate(lengths)
      ],
      shares,
    )

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> dict[str, Any]:
    source, inner, position = self._locate(index)
    return source[inner] | {'id': self._ids[position]}

  def fields(self, index: int) -> dict[str, Any]:
    """Returns an example without its image."""
    source, inner, position = self._locate(index)
    return source.fields(inner) | {'id': self._ids[position]}

  def where(self, index: int) -> str:
    """Returns the file of an example and its name there."""
    source, inner, _ = self._locate(index)
    return source.where(inner)

  def position(self, index: int) -> int:
    """Returns the number of an example, counted through the sources' splits in turn."""
    return self._locate(index)[2]

  def _locate(self, index: int) -> tuple[Source, int, int]:
    """Returns the source of an example, its number there, and its position."""
    number, inner = self._mixed[index]
    source = self._sources[number]
    return source, inner, self._starts[number] + source.position(inner)

  def values(self, field: str) -> list:
    """Returns the values of a field, source by source, once per example."""
    return [value for source in self._sources for value in source.values(field)]
