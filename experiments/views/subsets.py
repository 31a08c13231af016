"""A copy of the emoji whose examples tell which subsets they are in.

`tail` and `balanced` are 'yes' or 'no': subgroups of sizes that decay exponentially, and of equal
sizes, with as many examples in all. `draw` and `center` rank an example from 0 up to 1: in a random
order, and in a greedy cover of the features by balls, k-center. Those below a share are a subset of
that share.
"""

import collections
import pathlib
from collections.abc import Sequence

import numpy as np

from contrastive_jax import data
from contrastive_jax.data.sources import array_record
from experiments.side_by_side import Launch, train_all
from experiments.views import arms, measures

BALANCED = 30  # examples per class; smaller classes are in neither set
DECAY = 100.0  # the largest class over the smallest
_PLAIN = 'train[skin_tone=,group!=flags]+openmoji[skin_tone=,group!=flags]'
_POOL = 'train[vendor=noto|twemoji]'  # that the recipe trains on


def draw_classes(
  labels: Sequence[str], sizes: Sequence[int], seed: int = 0
) -> dict[str, np.ndarray]:
  """Draws examples of classes, of given sizes: the largest class gets the largest size.

  Args:
    labels: of N examples.
    sizes: in descending order; further classes get none. Classes of equal size are in order of
      their labels.
    seed: of the draw. A smaller size draws some of the examples of a larger one.

  Returns:
    Numbers of the examples by class.

  Raises:
    ValueError: if a class has fewer examples than its size.
  """
  counts = collections.Counter(labels)
  order = sorted(counts, key=lambda label: (-counts[label], label))
  if len(order) < len(sizes):
    raise ValueError(f'{len(sizes)} sizes, and {len(order)} classes; give one per class at most')
  rng, drawn = np.random.default_rng(seed), {}
  numbers = rng.permutation(len(labels))
  for label, size in zip(order, sizes, strict=False):
    own = [number for number in numbers if labels[number] == label][:size]
    if len(own) < size:
      raise ValueError(f'{label!r} has {len(own)} examples, and its size is {size}')
    drawn[label] = np.array(own)
  return drawn


def decaying(classes: int, total: int, decay: float) -> list[int]:
  """Sizes of K classes in proportion to decay^(−k / (K − 1)) from k = 0; their sum is total."""
  shares = decay ** (-np.arange(classes) / (classes - 1))
  ends = np.round(total * np.cumsum(shares) / shares.sum()).astype(int)
  return sorted(np.diff(ends, prepend=0).tolist(), reverse=True)


def k_centers(features: np.ndarray, count: int) -> list[int]:
  """Numbers of a greedy cover: each is farthest from those before it (Gonzalez, 1985).

  Args:
    features: [N, D]; the first center is the example nearest to their mean.
    count: number of centers. The first k of them are the cover by k.
  """
  squares = np.sum(features**2, axis=1)

  def distances(point):
    return squares - 2 * features @ point + point @ point

  centers = [int(np.argmin(distances(features.mean(0))))]
  nearest = distances(features[centers[0]])
  while len(centers) < count:
    centers.append(int(np.argmax(nearest)))
    nearest = np.minimum(nearest, distances(features[centers[-1]]))
  return centers


def prepare(folder: pathlib.Path, embedder: Launch) -> None:
  """Trains the encoder of the coreset, and writes the copy to a folder, unless it is there."""
  if (folder / 'heldout_style.array_record').exists():  # the last to be written
    return
  train_all([embedder], 1, lambda: None)
  marks = collections.defaultdict(lambda: {'tail': 'no', 'balanced': 'no', 'draw': 1, 'center': 1})
  plain = data.open_source('emoji', _PLAIN)
  labels, keys = plain.values('subgroup'), _keys(plain)
  classes = sum(count >= BALANCED for count in collections.Counter(labels).values())
  sizes = {'balanced': [BALANCED] * classes}
  sizes['tail'] = decaying(classes, BALANCED * classes, DECAY)
  for name, own in sizes.items():
    for number in np.concatenate([*draw_classes(labels, own).values()]):
      marks[keys[number]][name] = 'yes'
  pool = data.open_source('emoji', _POOL)
  features = measures.features(embedder.folder, pool)
  count, keys = len(pool), _keys(pool)
  orders = {
    'draw': np.random.default_rng(0).permutation(count),
    'center': k_centers(features, round(max(arms.SHARES) * count)),
  }
  for name, order in orders.items():
    for rank, number in enumerate(order):
      marks[keys[number]][name] = rank / count
  folder.mkdir(parents=True, exist_ok=True)
  for split in ('train', 'openmoji', 'heldout_style'):
    source = data.open_source('emoji', split)
    rows = (example | marks[key] for example, key in zip(source, _keys(source), strict=True))
    array_record.write(str(folder / f'{split}.array_record'), rows)


def _keys(source) -> list[tuple[str, str]]:
  """What tells the drawings apart."""
  return list(zip(source.values('vendor'), source.values('hexcode'), strict=True))
