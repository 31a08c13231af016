"""Outcomes per query, and differences between runs by bootstrap."""

import io
import pathlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Outcome(NamedTuple):
  """Outcomes of Q queries.

  Attributes:
    hits: [Q] float64, the probability that a query is answered correctly: 0 or 1 except for ties.
    captions: [Q] uint32, a checksum of each query's caption, or of all captions of its image.
      Queries with equal checksums are dependent.
  """

  hits: np.ndarray
  captions: np.ndarray


class Difference(NamedTuple):
  """An estimate and its confidence interval."""

  value: float
  low: float
  high: float


def checksums(texts: Iterable[str]) -> np.ndarray:
  """Returns checksums [Q] of Q texts, uint32."""
  return np.array([zlib.crc32(text.encode()) for text in texts], np.uint32)


def means(found: Mapping[str, Outcome]) -> dict[str, float]:
  """Returns the mean of each outcome, by name."""
  return {name: float(outcome.hits.mean()) for name, outcome in found.items()}


def outcomes(split: Any) -> dict[str, Outcome]:
  """Returns the outcomes of an `EmbeddedSplit`, by the name of the metric that is their mean."""
  return {f'{split.name}/{task}': outcome for task, outcome in split.outcomes.items()}


def write(path: pathlib.Path, splits: Sequence[Any]) -> None:
  """Writes the outcomes of all splits; NumPy opens the file."""
  found = [item for split in splits for item in outcomes(split).items()]
  arrays = {name: np.rec.fromarrays(outcome, names=outcome._fields) for name, outcome in found}
  content = io.BytesIO()
  np.savez_compressed(content, **arrays)
  path.write_bytes(content.getvalue())  # NumPy writes to disks alone


def read(path: pathlib.Path) -> dict[str, Outcome]:
  """Reads the outcomes that `write` wrote; returns none if the file is missing."""
  if not path.exists():
    return {}
  with np.load(io.BytesIO(path.read_bytes())) as file:
    return {name: Outcome(file[name]['hits'], file[name]['captions']) for name in file.files}


def difference(
  before: Outcome, after: Outcome, *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Difference:
  """Difference of two means, `after` − `before`, with a paired bootstrap interval [1].

  Each query is resampled with its outcomes in both runs, and queries of equal caption are resampled
  together, since they are dependent.

  Args:
    before: outcomes of one run.
    after: outcomes of another run, for the same queries in the same order.
    level: confidence level.
    resamples: number of resamples.
    seed: seed of the resamples.

  Raises:
    ValueError: if the queries differ.

  References:
    [1] Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
  """
  if not np.array_equal(before.captions, after.captions):
    raise ValueError(
      f'{len(before.captions)} queries of one run are not the {len(after.captions)} of the other'
    )
  _, cluster = np.unique(before.captions, return_inverse=True)
  sizes = np.bincount(cluster)
  sums = np.bincount(cluster, after.hits.astype(np.float64) - before.hits)
  rng = np.random.default_rng(seed)
  means = np.empty(resamples)
  for index in range(resamples):
    drawn = rng.integers(len(sizes), size=len(sizes))
    means[index] = sums[drawn].sum() / sizes[drawn].sum()
  low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
  return Difference(float(sums.sum() / sizes.sum()), float(low), float(high))
