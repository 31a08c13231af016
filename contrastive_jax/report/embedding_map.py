"""The embedding space in the report: a map, and plots of diagnostics."""

import importlib.util
from typing import Any

import numpy as np

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.evaluation.embedded import EmbeddedSplit
from contrastive_jax.report import plots

MAP_PAIRS = 600  # maximum on the map; more would overlap
MAP_SIDE = 1000  # side of the map, in SVG units
MAX_COLORS = 10  # classes with a color of their own; the others are gray
HARDEST = (1, 10, 100)

_SAMPLE_PAIRS = 2048  # maximum number of pairs behind the plots
_BINS = 40
_MIN_SHARE = 1e-6  # lower end of the spectrum's axis, as a share of the variance
_TEMPERATURES = np.geomspace(0.01, 1, 25)
_LABEL_HEIGHT = 44  # of a label on the map, in SVG units


def plot_space(split: EmbeddedSplit, scale: float | None) -> dict[str, Any]:
  """Lays out the map and the plots of a split, or of a sample drawn with a fixed seed.

  Args:
    split: the split.
    scale: the model's inverse temperature, to be marked; None if unknown.
  """
  rows = np.random.default_rng(0).permutation(len(split.captions))
  sample = np.sort(rows[:_SAMPLE_PAIRS])
  image, text = split.image_embeddings[sample], split.text_embeddings[sample]
  same = np.unique(np.array(split.captions)[sample], return_inverse=True)[1].astype(np.int32)
  sides = ('image', 'text') if split.images is not None else ('first', 'second')
  shown = [_spectrum(image, text, sides)] if len(sample) > 1 else []
  if same.max():
    shown = [_similarities(image, text, same), *shown, _hardness(image, text, same, scale)]
  return {
    'map': _map(split, np.sort(rows[:MAP_PAIRS])) if len(sample) > 2 else None,
    'panels': shown,
    'sampled': len(sample),
  }


def project(embeddings: np.ndarray) -> tuple[np.ndarray, str]:
  """Projects embeddings to the plane; returns [N, 2] and the name of the method.

  The method is UMAP [1] if it is installed, and PCA otherwise.

  References:
    [1] McInnes et al., UMAP: Uniform Manifold Approximation and Projection for Dimension
      Reduction, 2018.
  """
  if importlib.util.find_spec('umap') and len(embeddings) > 16:
    import umap

    reducer = umap.UMAP(metric='cosine', random_state=0, n_jobs=1)
    return np.asarray(reducer.fit_transform(embeddings)), 'UMAP'
  centered = embeddings.astype(np.float64) - embeddings.mean(0)
  _, directions = np.linalg.eigh(centered.T @ centered)
  directions = directions[:, : -3 if len(directions) > 1 else None : -1]
  # The sign of an eigenvector is arbitrary; making its largest entry positive fixes it.
  largest = np.take_along_axis(directions, np.abs(directions).argmax(0)[None], 0)
  plane = centered @ (directions * np.where(largest < 0, -1, 1))
  return np.pad(plane, [(0, 0), (0, 2 - plane.shape[1])]), 'PCA'


def _map(split: EmbeddedSplit, rows: np.ndarray) -> dict:
  """Lays out images and captions on the plane, by the first field with several classes."""
  embeddings = np.concatenate([split.image_embeddings[rows], split.text_embeddings[rows]])
  plane, method = project(embeddings)
  low, high = plane.min(0), plane.max(0)
  middle, reach = (low + high) / 2, max((high - low).max(), 1e-9)
  positions = np.round(MAP_SIDE * (0.5 + 0.94 * (plane - middle) / reach * [1, -1])).astype(int)
  image, text = np.split(positions, 2)
  parting = (item for item in split.classes.items() if len(set(item[1])) > 1)
  field, labels = next(parting, ('', [''] * len(split.captions)))
  labels = np.array(labels)[rows]
  names, counts = np.unique(labels, return_counts=True)
  order = names[np.argsort(-counts, kind='stable')]
  classes = [
    {
      'name': str(name),
      'size': int(np.sum(own)),
      'color': index if index < MAX_COLORS else 'other',
      'images': ''.join(f'M{x} {y}h0' for x, y in image[own]),
      'captions': ''.join(f'M{x - 6} {y - 6}l12 12m0-12l-12 12' for x, y in text[own]),
      'at': np.median(image[own], axis=0).round().astype(int).tolist(),
    }
    for index, name in enumerate(order)
    for own in [labels == name]
  ]
  _separate_labels([group for group in classes[:MAX_COLORS] if group['name']])
  return {
    'method': method,
    'field': field,
    'pairs': len(rows),
    'side': MAP_SIDE,
    'classes': classes,
    'labeled': min(len(classes), MAX_COLORS) if len(classes) > 1 else 0,
  }


def _separate_labels(groups: list[dict]) -> None:
  """Moves the labels of groups until none overlap and all lie on the map."""
  placed = []
  for group in sorted(groups, key=lambda group: group['at'][1]):
    x, y = group['at']
    half = 10 * len(group['name']) + 15  # including the dot before it
    x = min(max(x, half), MAP_SIDE - half)
    while near := [
      top
      for top, other, width in placed
      if abs(top - y) < _LABEL_HEIGHT and abs(other - x) < half + width
    ]:
      y = max(near) + _LABEL_HEIGHT
    placed.append((y, x, half))
    group['at'] = [x, y]


def _similarities(image, text, same) -> dict:
  """Plots the distributions of the cosines of positive and negative pairs."""
  own = np.sum(image * text, axis=1)
  cosines = image @ text.T
  others = cosines[same[:, None] != same]
  edges = np.linspace(cosines.min() - 1e-6, cosines.max() + 1e-6, _BINS + 1)
  middles = (edges[1:] + edges[:-1]) / 2
  curves = {
    name: np.column_stack([middles, np.histogram(values, edges, density=True)[0]])
    for name, values in (('pairs', own), ('others', others))
  }
  return plots.plot(
    curves,
    plots.horizontal(edges[0], edges[-1]),
    format_value=plots.plain,
    format_x=plots.plain,
    low=0,
    label='peak',
    measure='Similarities',
    detail='density by cosine',
    style='kinds',
  )


def _spectrum(image, text, sides) -> dict:
  """Plots the variance along each principal direction."""
  curves = {}
  for name, embeddings in zip(sides, (image, text), strict=True):
    variances = diagnostics.spectrum(embeddings)
    shares = np.maximum(variances / max(variances.sum(), 1e-12), _MIN_SHARE)
    curves[name] = np.column_stack([np.arange(1, len(shares) + 1), shares])
  return plots.plot(
    curves,
    plots.horizontal(1, max(len(shares), 2), integer=True),
    format_value=plots.percent,
    logarithmic=True,
    label='name',
    measure='Spectrum',
    detail='share of the variance by principal direction',
    style='kinds',
  )


def _hardness(image, text, same, scale) -> dict:
  """Plots the hardest negatives' share of the gradient against the temperature."""
  negatives = int(np.max(len(same) - np.bincount(same)))
  counts = [count for count in HARDEST if count < negatives] or [1]
  shares = diagnostics.hard_negative_shares(
    image, text, scales=1 / _TEMPERATURES, hardest=tuple(counts), same=same
  )
  curves = {
    f'top {count}': np.column_stack([_TEMPERATURES, shares[:, index]])
    for index, count in enumerate(counts)
  }
  x_axis = plots.horizontal(_TEMPERATURES[0], _TEMPERATURES[-1], logarithmic=True)
  known = scale is not None and 1 <= scale <= 100
  return plots.plot(
    curves,
    x_axis,
    format_value=plots.percent,
    format_x=plots.plain,
    low=0,
    label='name',
    measure='Hard negatives',
    detail='share of the gradient by temperature',
    style='cutoffs',
    marked=(x_axis(1 / scale), f'the model’s {1 / scale:.3f}') if known else None,
  )
