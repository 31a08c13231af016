"""What the report shows of a split: similarities, retrievals, captions, confusions, mistakes."""

import collections
from typing import Any

import matplotlib
import numpy as np

from contrastive_jax.evaluation.captioning import is_right
from contrastive_jax.evaluation.embedded import Retrieved

SEED = 0
MATRIX_SIZE = 32
QUERIES = 8
WRITTEN = 24
FOUND = 5
MISTAKES = 8
CONFUSIONS = 8
CLASSES = 12  # at most in a matrix of confusions: more could not be read
COLORMAP = 'cividis'

_CHUNK = 512  # rows of the similarity matrix held at a time


def exhibits(split: Retrieved) -> dict[str, Any]:
  """A sample's similarities and retrievals, the confusions of its classes, and the mistakes.

  The sample is drawn with a fixed seed, before any score is known.
  """
  captions = np.array(split.captions)
  shuffled = np.random.default_rng(SEED).permutation(len(captions))
  sample = [int(row) for row in shuffled[_first_of_each(captions[shuffled])]][:MATRIX_SIZE]
  everything, distinct = np.arange(len(captions)), _first_of_each(captions)
  images, texts = split.image_embeddings, split.text_embeddings
  return dict(
    name=split.name,
    size=len(captions),
    distinct=len(distinct),
    matrix=_matrix(split, sample),
    pictures=[_retrieve(split, row, texts, images, everything) for row in sample[:QUERIES]],
    captions=[_retrieve(split, row, images, texts, distinct) for row in sample[:QUERIES]],
    written=[] if split.generated is None else [_write(split, row) for row in sample[:WRITTEN]],
    confusions=[_confusions(split, field) for field in split.predictions],
    **_mistakes(split),
  )


def gradient() -> list[str]:
  """The color map's colors, from low to high."""
  return [_color(share / 8)[0] for share in range(9)]


def _color(share: float) -> tuple[str, str]:
  """A share's color on the map, and that of a text to be read on it."""
  red, green, blue, _ = matplotlib.colormaps[COLORMAP](share)
  light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
  return matplotlib.colors.to_hex((red, green, blue)), '#111' if light > 0.45 else '#fff'


def _first_of_each(captions: np.ndarray) -> np.ndarray:
  """The first row of each distinct caption, in the order of the rows."""
  return np.sort(np.unique(captions, return_index=True)[1])


def _pair(split: Retrieved, row: int) -> dict:
  return {'image': split.images[row], 'caption': split.captions[row]}


def _matrix(split: Retrieved, rows: list[int]) -> dict:
  similarity = split.image_embeddings[rows] @ split.text_embeddings[rows].T
  low, high = float(similarity.min()), float(similarity.max())
  shares = (similarity - low) / max(high - low, 1e-6)
  return {
    'low': low,
    'high': high,
    'pairs': [_pair(split, row) for row in rows],
    'similarity': similarity,
    'shades': [[_color(share)[0] for share in row] for row in shares],
    'nearest': similarity.argmax(1),
  }


def _retrieve(split: Retrieved, row: int, queries, keys, candidates: np.ndarray) -> dict:
  """The candidates nearest to a query, and the rank of the first right one among them."""
  similarity = keys[candidates] @ queries[row]
  order = np.argsort(-similarity, kind='stable')
  right = [split.captions[candidate] == split.captions[row] for candidate in candidates[order]]
  found = [
    _pair(split, candidates[i]) | {'right': is_right, 'similarity': float(similarity[i])}
    for i, is_right in zip(order[:FOUND], right, strict=False)
  ]
  return _pair(split, row) | {'found': found, 'rank': right.index(True) + 1}


def _write(split: Retrieved, row: int) -> dict:
  """What the model wrote of a picture."""
  generated = split.generated[row]
  right = is_right(generated, [split.captions[row]])
  return _pair(split, row) | {'generated': generated, 'right': right}


def _confusions(split: Retrieved, field: str) -> dict:
  """What the pictures of each class are taken for: a matrix, and the most frequent mistakes."""
  truth, predicted = split.classes[field], split.predictions[field]
  sizes = collections.Counter(truth)
  taken = collections.Counter(zip(truth, predicted, strict=True))
  wrong = [(pair, count) for pair, count in taken.most_common() if pair[0] != pair[1]]
  columns = sorted({*truth, *predicted})
  shares = {pair: count / sizes[pair[0]] for pair, count in taken.items()}
  greatest = max(shares.values())
  return {
    'field': field,
    'classes': columns,
    'rows': [
      {
        'name': own,
        'size': sizes[own],
        'cells': [
          {
            'share': shares.get((own, other), 0.0),
            'count': taken[own, other],
            'right': own == other,
            'color': _color(shares.get((own, other), 0.0) / greatest),
          }
          for other in columns
        ],
      }
      for own in sorted(sizes)
    ]
    if len(columns) <= CLASSES
    else [],
    'frequent': [
      {'truth': own, 'taken': other, 'count': count, 'size': sizes[own]}
      for (own, other), count in wrong[:CONFUSIONS]
    ],
    'mistaken': sum(count for _, count in wrong),
  }


def _mistakes(split: Retrieved) -> dict:
  """The pictures that prefer a wrong caption to their own by the largest margin."""
  _, identity = np.unique(np.array(split.captions), return_inverse=True)
  margins, taken = [], []
  for start in range(0, len(identity), _CHUNK):
    rows = slice(start, start + _CHUNK)
    similarity = split.image_embeddings[rows] @ split.text_embeddings.T
    right = identity[rows, None] == identity
    wrong = np.where(right, -np.inf, similarity)
    margins.append(wrong.max(1) - np.where(right, similarity, -np.inf).max(1))
    taken.append(wrong.argmax(1))
  margin, taken = np.concatenate(margins), np.concatenate(taken)
  worst = [row for row in np.argsort(-margin, kind='stable')[:MISTAKES] if margin[row] > 0]
  return {
    'mistaken': int((margin > 0).sum()),
    'mistakes': [
      _pair(split, row) | {'taken': _pair(split, taken[row]), 'margin': float(margin[row])}
      for row in worst
    ],
  }
