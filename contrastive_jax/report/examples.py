"""Examples of a split in the report: similarities, retrievals, captions, confusions, mistakes."""

import collections
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from contrastive_jax.evaluation.captioning import is_right
from contrastive_jax.evaluation.embedded import EmbeddedSplit

SEED = 0
MATRIX_SIZE = 32
QUERIES = 8
WRITTEN = 24
FOUND = 5
MISTAKES = 8
CONFUSIONS = 8
MAX_CLASSES = 12  # in a confusion matrix; more would be illegible
COLORMAP = 'cividis'

_CHUNK = 512  # rows of the similarity matrix per block


def collect(split: EmbeddedSplit) -> dict[str, Any]:
  """Collects a sample's similarities, retrievals and captions, the confusions, and the mistakes.

  The sample is drawn with a fixed seed, independently of any score.
  """
  captions, sample = np.array(split.captions), _sample(split)
  distinct = _first_of_each(captions)
  images, texts = split.image_embeddings, split.text_embeddings
  return dict(
    name=split.name,
    has_images=split.images is not None,
    size=len(captions),
    distinct=len(distinct),
    matrix=_matrix(split, sample),
    images=_retrieved_images(split, sample),
    captions=[_retrieve(split, row, images, texts, distinct) for row in sample[:QUERIES]],
    written=[] if split.generated is None else [_write(split, row) for row in sample[:WRITTEN]],
    confusions=[_confusions(split, field) for field in split.predictions],
    **_mistakes(split),
  )


def strips(splits: Sequence[EmbeddedSplit]) -> dict[str, list[tuple[str, Image.Image]]]:
  """The images retrieved for some captions, as the report shows them, for trackers.

  Returns:
    By '<split>/retrieved': pairs of a caption and an image of the nearest `FOUND`, side by side.
    Splits without images are left out.
  """
  return {
    f'{split.name}/retrieved': [
      (query['caption'], Image.fromarray(np.concatenate([x['image'] for x in query['found']], 1)))
      for query in _retrieved_images(split, _sample(split))
    ]
    for split in splits
    if split.images is not None and len(split.captions)
  }


def _retrieved_images(split: EmbeddedSplit, sample: list[int]) -> list[dict]:
  """Returns what some captions of a sample retrieve, see `_retrieve`."""
  images, texts = split.image_embeddings, split.text_embeddings
  everything = np.arange(len(split.captions))
  return [_retrieve(split, row, texts, images, everything) for row in sample[:QUERIES]]


def _sample(split: EmbeddedSplit) -> list[int]:
  """Rows of distinct captions, drawn with a fixed seed."""
  captions = np.array(split.captions)
  shuffled = np.random.default_rng(SEED).permutation(len(captions))
  return [int(row) for row in shuffled[_first_of_each(captions[shuffled])]][:MATRIX_SIZE]


def gradient() -> list[str]:
  """Returns the colors of the color map, from low to high."""
  return [_color(share / 8)[0] for share in range(9)]


def _color(share: float) -> tuple[str, str]:
  """Returns the color of a share, and a legible color of text on it."""
  red, green, blue, _ = matplotlib.colormaps[COLORMAP](share)
  light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
  return matplotlib.colors.to_hex((red, green, blue)), '#111' if light > 0.45 else '#fff'


def _first_of_each(captions: np.ndarray) -> np.ndarray:
  """Returns the first row of each distinct caption, in order."""
  return np.sort(np.unique(captions, return_index=True)[1])


def _pair(split: EmbeddedSplit, row: int) -> dict:
  """Returns the two sides of a pair, of which the first is an image or a text."""
  caption = {'caption': split.captions[row]}
  if split.images is None:
    return {'first_text': split.first_texts[row]} | caption
  return {'image': split.images[row]} | caption


def _matrix(split: EmbeddedSplit, rows: list[int]) -> dict:
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


def _retrieve(split: EmbeddedSplit, row: int, queries, keys, candidates: np.ndarray) -> dict:
  """Returns the candidates nearest to a query, and the rank of the first correct one."""
  similarity = keys[candidates] @ queries[row]
  order = np.argsort(-similarity, kind='stable')
  right = [split.captions[candidate] == split.captions[row] for candidate in candidates[order]]
  found = [
    _pair(split, candidates[i]) | {'right': is_right, 'similarity': float(similarity[i])}
    for i, is_right in zip(order[:FOUND], right, strict=False)
  ]
  return _pair(split, row) | {'found': found, 'rank': right.index(True) + 1}


def _write(split: EmbeddedSplit, row: int) -> dict:
  """Returns an image with its generated caption."""
  generated = split.generated[row]
  right = is_right(generated, [split.captions[row]])
  return _pair(split, row) | {'generated': generated, 'right': right}


def _confusions(split: EmbeddedSplit, field: str) -> dict:
  """Returns the confusion matrix of a field, and its most frequent mistakes."""
  truth, predicted = split.classes[field], split.predictions[field]
  sizes = collections.Counter(truth)
  taken = collections.Counter(zip(truth, predicted, strict=True))
  wrong = [(pair, count) for pair, count in taken.most_common() if pair[0] != pair[1]]
  columns = sorted({*truth, *predicted})
  shares = {pair: count / sizes[pair[0]] for pair, count in taken.items()}
  max_share = max(shares.values())
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
            'color': _color(shares.get((own, other), 0.0) / max_share),
          }
          for other in columns
        ],
      }
      for own in sorted(sizes)
    ]
    if len(columns) <= MAX_CLASSES
    else [],
    'frequent': [
      {'truth': own, 'taken': other, 'count': count, 'size': sizes[own]}
      for (own, other), count in wrong[:CONFUSIONS]
    ],
    'mistaken': sum(count for _, count in wrong),
  }


def _mistakes(split: EmbeddedSplit) -> dict:
  """Returns the images nearest to a wrong caption, by the margin over their own caption."""
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
