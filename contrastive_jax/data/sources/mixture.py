"""Mixtures: examples of several sources, in shares that hold for any stretch of the order."""

import math
import re
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from contrastive_jax.data.sources.source import Source

# Shares are kept as whole numbers, the least of them this.
_LEAST = 100


def parse_mixture(name: str) -> list[tuple[str, float]]:
  """Names and weights of 'A*0.7+B*0.3'; none for the name of one source.

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
  """Examples of several sources by number, which takes no memory for their order.

  An epoch is as long as it takes to show every example at least once; those of sources too small
  for their weight come again. `id` counts through the sources' splits, one after another.

  Attributes:
    cached: False: the sources may keep their examples, but what is made of them is not kept.
    ids: how many examples the sources' splits have; every `id` is below.
  """

  cached = False

  def __init__(self, sources: Sequence[Source], weights: Sequence[float]):
    """Mixes.

    Args:
      sources: what to mix.
      weights: their shares, up to a factor; each is rounded to a hundredth of the least.

    Raises:
      ValueError: if a weight is not above 0, or a source is empty.
    """
    if not all(0 < weight < math.inf for weight in weights):
      raise ValueError(f'a mixture has the weights {list(weights)}; use numbers above 0')
    if not all(map(len, sources)):
      raise ValueError(f'a mixture has sources of {[*map(len, sources)]} examples; drop empty ones')
    shares = [round(_LEAST * weight / min(weights)) for weight in weights]
    lengths = [len(source) for source in sources]
    # At any length a source may be short of its share, by one for each of the others.
    late = len(sources) - 1
    self._length = max(
      -(-(length + late) * sum(shares) // share)
      for length, share in zip(lengths, shares, strict=True)
    )
    self._sources = sources
    self._starts = np.cumsum([0, *(source.ids for source in sources)])
    self.ids = int(self._starts[-1])
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
    number, inner = self._mixed[index]
    example = self._sources[number][inner]
    return example | {'id': int(self._starts[number]) + example['id']}

  def where(self, index: int) -> str:
    """The file of an example and its name there."""
    number, inner = self._mixed[index]
    return self._sources[number].where(inner)

  def values(self, field: str) -> list:
    """All values of a field, each example's once, source after source."""
    return [value for source in self._sources for value in source.values(field)]
