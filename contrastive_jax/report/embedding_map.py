"""The embedding space as the report shows it: a map of it, and plots of the diagnostics."""

import importlib.util
from typing import Any

import numpy as np

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.evaluation.embedded import Retrieved
from contrastive_jax.report import plots

PAIRS = 600  # at most on the map: more would cover each other
SIDE = 1000  # of the map, in SVG units
CLASSES = 10  # with a color of their own; the rest are gray
HARDEST = (1, 10, 100)

_SAMPLE = 2048  # pairs at most behind the plots
_BINS = 40
_FLOOR = 1e-6  # of the variance: what is below is drawn there
_TEMPERATURES = np.geomspace(0.01, 1, 25)
_LABEL = 44  # the height of a label on the map


def exhibit(split: Retrieved, scale: float | None) -> dict[str, Any]:
  """The map and the plots of a split, of a sample drawn with a fixed seed where it is large.

  Args:
    split: what is shown.
    scale: the model's inverse temperature, to be marked; None if it is not known.
  """
  rows = np.random.default_rng(0).permutation(len(split.captions))
  sample = np.sort(rows[:_SAMPLE])
  image, text = split.image_embeddings[sample], split.text_embeddings[sample]
  same = np.unique(np.array(split.captions)[sample], return_inverse=True)[1].astype(np.int32)
  shown = [_spectrum(image, text)] if len(sample) > 1 else []
  if same.max():
    shown = [_similarities(image, text, same), *shown, _hardness(image, text, same, scale)]
  return {
    'map': _map(split, np.sort(rows[:PAIRS])) if len(sample) > 2 else None,
    'panels': shown,
    'sampled': len(sample),
  }


def project(embeddings: np.ndarray) -> tuple[np.ndarray, str]:
  """A plane in which near embeddings are near: [N, 2], and the name of the method.

  UMAP [1] if it is installed, and the two principal components if not.

  References:
    [1] McInnes et al., UMAP: Uniform Manifold Approximation and Projection for Dimension
      Reduction, 2018.
  """
  if importlib.util.find_spec('umap') and len(embeddings) > 16:
    import umap

    reducer = umap.UMAP(metric='cosine', random_state=0, n_jobs=1)
    return np.asarray(reducer.fit_transform(embeddings)), 'UMAP'
  centred = embeddings.astype(np.float64) - embeddings.mean(0)
  _, directions = np.linalg.eigh(centred.T @ centred)
  directions = directions[:, : -3 if len(directions) > 1 else None : -1]
  # An eigenvector's sign is arbitrary; the greatest entry shall be positive, everywhere the same.
  greatest = np.take_along_axis(directions, np.abs(directions).argmax(0)[None], 0)
  plane = centred @ (directions * np.where(greatest < 0, -1, 1))
  return np.pad(plane, [(0, 0), (0, 2 - plane.shape[1])]), 'PCA'


def _map(split: Retrieved, rows: np.ndarray) -> dict:
  """Pictures and captions in one plane, by class of the first field that parts them."""
  embeddings = np.concatenate([split.image_embeddings[rows], split.text_embeddings[rows]])
  plane, method = project(embeddings)
  low, high = plane.min(0), plane.max(0)
  middle, reach = (low + high) / 2, max((high - low).max(), 1e-9)
  places = np.round(SIDE * (0.5 + 0.94 * (plane - middle) / reach * [1, -1])).astype(int)
  image, text = np.split(places, 2)
  parting = (item for item in split.classes.items() if len(set(item[1])) > 1)
  field, labels = next(parting, ('', [''] * len(split.captions)))
  labels = np.array(labels)[rows]
  names, counts = np.unique(labels, return_counts=True)
  order = names[np.argsort(-counts, kind='stable')]
  classes = [
    {
      'name': str(name),
      'size': int(np.sum(own)),
      'color': place if place < CLASSES else 'other',
      'pictures': ''.join(f'M{x} {y}h0' for x, y in image[own]),
      'captions': ''.join(f'M{x - 6} {y - 6}l12 12m0-12l-12 12' for x, y in text[own]),
      'at': np.median(image[own], axis=0).round().astype(int).tolist(),
    }
    for place, name in enumerate(order)
    for own in [labels == name]
  ]
  _part([group for group in classes[:CLASSES] if group['name']])
  return {
    'method': method,
    'field': field,
    'pairs': len(rows),
    'side': SIDE,
    'classes': classes,
    'labelled': min(len(classes), CLASSES) if len(classes) > 1 else 0,
  }


def _part(groups: list[dict]) -> None:
  """Moves the labels of groups down until none lies on another, and into the map."""
  placed = []
  for group in sorted(groups, key=lambda group: group['at'][1]):
    x, y = group['at']
    half = 10 * len(group['name']) + 15  # a dot before it
    x = min(max(x, half), SIDE - half)
    while near := [
      top for top, other, width in placed if abs(top - y) < _LABEL and abs(other - x) < half + width
    ]:
      y = max(near) + _LABEL
    placed.append((y, x, half))
    group['at'] = [x, y]


def _similarities(image, text, same) -> dict:
  """How the cosines of pairs and of other pictures and captions are distributed."""
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


def _spectrum(image, text) -> dict:
  """The variance along each principal direction: what falls to nothing has collapsed."""
  curves = {}
  for name, embeddings in (('image', image), ('text', text)):
    variances = diagnostics.spectrum(embeddings)
    shares = np.maximum(variances / max(variances.sum(), 1e-12), _FLOOR)
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
  """The hardest negatives' share of the gradient, against the temperature."""
  negatives = int(np.max(len(same) - np.bincount(same)))
  counts = [count for count in HARDEST if count < negatives] or [1]
  shares = diagnostics.hard_negative_shares(
    image, text, scales=1 / _TEMPERATURES, hardest=tuple(counts), same=same
  )
  curves = {
    f'top {count}': np.column_stack([_TEMPERATURES, shares[:, place]])
    for place, count in enumerate(counts)
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
