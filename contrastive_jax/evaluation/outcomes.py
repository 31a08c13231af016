"""Right or wrong by query: what differences between runs are judged by."""

import pathlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Outcome(NamedTuple):
  """What came of Q queries.

  Attributes:
    hits: [Q] float64, the chance that a query's answer is right: 0 or 1 but for ties.
    captions: [Q] uint32, a checksum of each query's caption, or of all captions of its picture.
      Queries of equal checksum are not independent of each other.
  """

  hits: np.ndarray
  captions: np.ndarray


class Difference(NamedTuple):
  """An estimate and its confidence interval."""

  value: float
  low: float
  high: float


def checksums(texts: Iterable[str]) -> np.ndarray:
  """Checksums [Q] of Q texts, uint32."""
  return np.array([zlib.crc32(text.encode()) for text in texts], np.uint32)


def means(found: Mapping[str, Outcome]) -> dict[str, float]:
  """The results, by name, whose queries these are."""
  return {name: float(outcome.hits.mean()) for name, outcome in found.items()}


def outcomes(split: Any) -> dict[str, Outcome]:
  """The outcomes of a `Retrieved`, by the name of the result that is their mean."""
  return {f'{split.name}/{task}': outcome for task, outcome in split.outcomes.items()}


def write(path: pathlib.Path, splits: Sequence[Any]) -> None:
  """Writes the outcomes of all splits; NumPy opens the file."""
  found = [item for split in splits for item in outcomes(split).items()]
  arrays = {name: np.rec.fromarrays(outcome, names=outcome._fields) for name, outcome in found}
  np.savez_compressed(path, **arrays)


def read(path: pathlib.Path) -> dict[str, Outcome]:
  """What `write` wrote; nothing if there is no file."""
  if not path.exists():
    return {}
  with np.load(path) as file:
    return {name: Outcome(file[name]['hits'], file[name]['captions']) for name in file.files}


def difference(
  before: Outcome, after: Outcome, *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Difference:
  """How much higher the mean of `after` is, with a bootstrap interval [1].

  The queries are the same, so that each is drawn with both its outcomes; those of equal caption are
  drawn together, since they are not independent.

  Args:
    before: of one run.
    after: of another, the same queries in the same order.
    level: how often such an interval holds the true difference.
    resamples: how many.
    seed: of their draw.

  Raises:
    ValueError: if the queries are not the same.

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
  for place in range(resamples):
    drawn = rng.integers(len(sizes), size=len(sizes))
    means[place] = sums[drawn].sum() / sizes[drawn].sum()
  low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
  return Difference(float(sums.sum() / sizes.sum()), float(low), float(high))
