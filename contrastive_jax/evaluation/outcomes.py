"""Right or wrong by query: what differences between runs are judged by."""

import pathlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contrastive_jax.evaluation.captioning import is_right
from contrastive_jax.evaluation.retrieval import hits
from contrastive_jax.evaluation.retrieved import Retrieved

CUTOFFS = (1, 5, 10)


class Outcome(NamedTuple):
  """What came of Q queries.

  Attributes:
    hits: [Q] float32, the chance that a query's answer is right: 0 or 1 but for ties.
    captions: [Q] uint32, a checksum of each query's caption. Queries of equal caption are not
      independent of each other.
  """

  hits: np.ndarray
  captions: np.ndarray


class Difference(NamedTuple):
  """An estimate and its confidence interval."""

  value: float
  low: float
  high: float


def outcomes(split: Retrieved) -> dict[str, Outcome]:
  """The outcomes of a split's queries, by the name of the result that is their mean."""
  captions = np.array([zlib.crc32(caption.encode()) for caption in split.captions], np.uint32)
  first = np.sort(np.unique(np.array(split.captions), return_index=True)[1])
  codes = {caption: code for code, caption in enumerate(dict.fromkeys(split.captions))}
  own = np.array([codes[caption] for caption in split.captions])
  image, text = split.image_embeddings, split.text_embeddings[first]
  ways = {
    'image_to_text_recall': (image, text, own, own[first], captions),
    'text_to_image_recall': (text, image, own[first], own, captions[first]),
  }
  found = {
    f'{way}@{k}': Outcome(chances.astype(np.float32), queries)
    for way, (*arguments, queries) in ways.items()
    for k, chances in hits(*arguments, CUTOFFS).items()
  }
  for field, predicted in split.predictions.items():
    right = [a == b for a, b in zip(split.classes[field], predicted, strict=True)]
    found[f'zero_shot_{field}_accuracy@1'] = Outcome(np.array(right, np.float32), captions)
  if split.generated is not None:
    right = [is_right(a, [b]) for a, b in zip(split.generated, split.captions, strict=True)]
    found['caption_exact_match'] = Outcome(np.array(right, np.float32), captions)
  return {f'{split.name}/{task}': outcome for task, outcome in found.items()}


def write(path: pathlib.Path, splits: Sequence[Retrieved]) -> None:
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
