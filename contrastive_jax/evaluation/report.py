"""The page that a run leaves behind: its figures, curves, retrievals and mistakes in one HTML file.

The page asks nothing of the network. Pictures are data URIs, curves are inline SVG, and a content
security policy forbids the rest. This module decides what is shown, `report.html` how it looks.
"""

import base64
import collections
import dataclasses
import io
import itertools
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib import ticker
from PIL import Image

from contrastive_jax.evaluation.captioning import is_right

SEED = 0
MATRIX_SIZE = 32
QUERIES = 8
WRITTEN = 24
FOUND = 5
MISTAKES = 8
HEADLINES = 6
COLORMAP = 'cividis'

_CHUNK = 512  # rows of the similarity matrix held at a time
_PICTURE_SIZE = 128  # pixels: twice the largest size at which the page shows a picture
_POINTS = 240  # per curve: more would not be seen
_WIDTH, _HEIGHT = 360, 204  # of a curve's canvas, in SVG units
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 294, 10, 176  # of its plot
_LINE = 13  # the height of a label on it

_FRACTION = re.compile(r'recall|accuracy|precision|exact_match|zero_shot|@\d+$|_top\d+$')
_CUTOFF = re.compile(r'(.+?)(?:@|_top)(\d+)')
_SPELLING = {'_': ' ', 'heldout': 'held-out', 'zero shot': 'zero-shot', '/': ' / '}


@dataclasses.dataclass(frozen=True, eq=False)
class Retrieved:
  """A split as the model sees it: N pairs and their embeddings. Row i of each field is one pair.

  Attributes:
    name: the split's name, as it begins the names of its results.
    images: [N, S, S, 3] uint8.
    captions: N strings. Pairs of equal caption are right answers to each other.
    image_embeddings: [N, D] float32 unit vectors.
    text_embeddings: [N, D] float32 unit vectors.
    generated: N strings, what the model writes of the images; None if it does not.

  Raises:
    ValueError: if a field's shape or dtype is another.
  """

  name: str
  images: np.ndarray
  captions: Sequence[str]
  image_embeddings: np.ndarray
  text_embeddings: np.ndarray
  generated: Sequence[str] | None = None

  def __post_init__(self):
    N = len(self.captions)
    images = self.images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[::3] != (N, 3):
      raise ValueError(
        f'images of split {self.name!r} are {images.dtype} {images.shape}; '
        f'give uint8 [N, S, S, 3] with N = {N}, the number of captions'
      )
    for field in ('image_embeddings', 'text_embeddings'):
      shape = getattr(self, field).shape
      if len(shape) != 2 or shape != (N, self.image_embeddings.shape[1]):
        raise ValueError(
          f'{field} of split {self.name!r} have shape {shape}; give [N, D] with N = {N}, '
          'the number of captions, and the same D for images and texts'
        )
    if self.generated is not None and len(self.generated) != N:
      raise ValueError(
        f'generated of split {self.name!r} has {len(self.generated)} captions; give N = {N}'
      )


def is_fraction(name: str) -> bool:
  """Whether a result of this name is a share, from 0 to 1."""
  return _FRACTION.search(name) is not None


def write(
  path: str | pathlib.Path,
  *,
  title: str,
  summary: Mapping[str, Any],
  results: Mapping[str, float],
  metrics: Sequence[Mapping[str, float]],
  splits: Sequence[Retrieved],
) -> None:
  """Writes the report of a run as one self-contained HTML file.

  The examples on the page are drawn with a fixed seed, before any score is known.

  Args:
    path: the file to write.
    title: the run's name.
    summary: facts about the run, by name, in the order in which to show them.
    results: the final evaluation, numbers by '<split>/<measure>'. Recalls and accuracies are
      fractions and shown as percent; a name ending in '@k' or '_top<k>' is one column of its
      measure's row; names of any other form are shown as they are.
    metrics: the lines of metrics.jsonl: 'step', and what was measured at it. May be empty.
    splits: the splits from which to show examples. May be empty.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters.update(label=_label, decimal=_decimal, picture=_picture)
  colors = matplotlib.colormaps[COLORMAP]
  page = environment.get_template('report.html').render(
    title=title,
    summary=summary,
    headlines=_headlines(results, splits),
    tables=_tables(results, splits),
    panels=_panels(metrics),
    splits=[_exhibits(split) for split in splits if len(split.captions)],
    gradient=[matplotlib.colors.to_hex(colors(i / 8)) for i in range(9)],
    seed=SEED,
    points=_POINTS,
  )
  pathlib.Path(path).write_text(page, encoding='utf-8')


def _label(name: str) -> str:
  """A name in words: 'heldout_style' is 'Held-out style'."""
  for written, spelled in _SPELLING.items():
    name = name.replace(written, spelled)
  return name[:1].upper() + name[1:]


def _decimal(value: float) -> str:
  return f'{value:.2f}'.replace('-', '−')


def _number(name: str, value: float) -> str:
  """A result as it is read: fractions in percent, whole numbers whole, others to 4 digits."""
  value = float(value)
  if is_fraction(name):
    text = f'{100 * value:.1f}%'
  elif value.is_integer() or abs(value) >= 1000:
    text = f'{value:,.0f}'
  else:
    text = f'{value:.4g}'
  return text.replace('-', '−')


def _split_name(name: str) -> tuple[str, str, int | None]:
  """'heldout_style/recall@5' is ('heldout_style', 'recall', 5)."""
  group, _, measure = name.rpartition('/')
  cutoff = _CUTOFF.fullmatch(measure)
  return (group, cutoff[1], int(cutoff[2])) if cutoff else (group, measure, None)


def _figure(name: str, value: float) -> dict:
  group, measure, cutoff = _split_name(name)
  return {
    'name': name,
    'value': value,
    'text': _number(name, value),
    'group': group,
    'measure': measure,
    'cutoff': cutoff,
  }


def _headlines(results, splits) -> list[dict]:
  """The results at cut-off 1; for a recall also a guess's, one in as many as there are captions."""
  sizes = {split.name: len(set(split.captions)) for split in splits if len(split.captions)}
  chances = {name: f'{100 / size:.2g}%' for name, size in sizes.items()}
  figures = [_figure(name, value) for name, value in results.items() if is_fraction(name)]
  return [
    figure | {'chance': chances.get(figure['group']) if 'recall' in figure['measure'] else None}
    for figure in figures
    if figure['cutoff'] == 1
  ][:HEADLINES]


def _tables(results, splits) -> list[dict]:
  """One table a split: a row a measure, a column a cut-off, and the measures that have none."""
  sizes = {split.name: (len(split.captions), len(set(split.captions))) for split in splits}
  tables = {}
  for figure in itertools.starmap(_figure, results.items()):
    group, measure, cutoff = figure['group'], figure['measure'], figure['cutoff']
    table = tables.setdefault(
      group, {'group': group, 'sizes': sizes.get(group), 'cutoffs': set(), 'rows': {}, 'others': {}}
    )
    if cutoff is None:
      table['others'][measure] = figure
    else:
      table['cutoffs'].add(cutoff)
      table['rows'].setdefault(measure, {})[cutoff] = figure
  return [table | {'cutoffs': sorted(table['cutoffs'])} for table in tables.values()]


def _panels(metrics) -> list[dict]:
  """One small plot a measure, on a common axis of steps; losses first, then recalls."""
  series = collections.defaultdict(lambda: collections.defaultdict(list))
  for line in metrics:
    for name, value in line.items():
      if name != 'step' and math.isfinite(value):
        group, measure, cutoff = _split_name(name)
        series[group, measure][cutoff].append((line['step'], value))
  # What never happened, such as skipped examples, needs no plot.
  series = {
    name: curves
    for name, curves in series.items()
    if is_fraction(name[1]) or any(value for curve in curves.values() for _, value in curve)
  }
  if not series:
    return []
  x_axis = _Axis(0, max(line['step'] for line in metrics) or 1, _LEFT, _RIGHT, integer=True)
  order = sorted(series, key=lambda key: ('loss' not in key[1], 'recall' not in key[1]))
  return [_panel(group, measure, series[group, measure], x_axis) for group, measure in order]


def _panel(group, measure, curves, x_axis) -> dict:
  fraction = is_fraction(measure) or None not in curves
  curves = {cutoff: _thinned(np.array(curve)) for cutoff, curve in sorted(curves.items())}
  values = np.concatenate([curve[:, 1] for curve in curves.values()])
  low, high = (0, values.max() or 1) if fraction else (values.min(), values.max())
  y_axis = _Axis(low, high, _BOTTOM, _TOP)

  def format_value(value):
    return f'{100 * value:.3g}%' if fraction else f'{value:,.4g}'.replace('-', '−')

  lines = []
  for cutoff, curve in curves.items():
    points = [(x_axis(step), y_axis(value)) for step, value in curve]
    prefix = '' if cutoff is None else f'@{cutoff} '
    lines.append(
      {
        'points': ' '.join(f'{x:.1f},{y:.1f}' for x, y in points),
        'end': points[-1],
        'label': prefix + format_value(curve[-1, 1]),
      }
    )
  _spread(lines)
  return {
    'group': group,
    'measure': measure,
    'lines': lines,
    'x_ticks': [(x_axis(tick), f'{tick:,.0f}') for tick in x_axis.ticks],
    'y_ticks': [(y_axis(tick), format_value(tick)) for tick in y_axis.ticks],
    'box': {'width': _WIDTH, 'height': _HEIGHT, 'left': _LEFT, 'right': _RIGHT, 'bottom': _BOTTOM},
  }


def _thinned(curve: np.ndarray) -> np.ndarray:
  """[n, 2] points as at most `_POINTS`, each the mean of its neighbours."""
  if len(curve) <= _POINTS:
    return curve
  return np.stack([part.mean(0) for part in np.array_split(curve, _POINTS)])


def _spread(lines: list[dict]) -> None:
  """Places the lines' labels beside their ends, from the bottom up, so that none overlap."""
  floor, ceiling = _BOTTOM, _TOP + _LINE * (len(lines) - 1)
  for line in sorted(lines, key=lambda line: -line['end'][1]):
    line['label_y'] = min(max(line['end'][1], ceiling), floor)
    floor, ceiling = line['label_y'] - _LINE, ceiling - _LINE


class _Axis:
  """Maps values from `low` to `high` to positions on the canvas, and names the round ones."""

  def __init__(self, low: float, high: float, start: float, stop: float, integer: bool = False):
    margin = 0 if high > low else 0.05 * abs(low) or 1
    self.low, self.high = low - margin, high + margin
    self.start, self.stop = start, stop
    locator = ticker.MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=integer)
    ticks = locator.tick_values(self.low, self.high)
    self.ticks = [tick for tick in ticks if self.low <= tick <= self.high]

  def __call__(self, value: float) -> float:
    share = (value - self.low) / (self.high - self.low)
    return float(self.start + share * (self.stop - self.start))


def _exhibits(split: Retrieved) -> dict:
  """What the page shows of a split: a sample's similarities and retrievals, and the mistakes."""
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
    **_mistakes(split),
  )


def _first_of_each(captions: np.ndarray) -> np.ndarray:
  """The first row of each distinct caption, in the order of the rows."""
  return np.sort(np.unique(captions, return_index=True)[1])


def _pair(split: Retrieved, row: int) -> dict:
  return {'image': split.images[row], 'caption': split.captions[row]}


def _matrix(split: Retrieved, rows: list[int]) -> dict:
  similarity = split.image_embeddings[rows] @ split.text_embeddings[rows].T
  low, high = float(similarity.min()), float(similarity.max())
  shades = matplotlib.colormaps[COLORMAP]((similarity - low) / max(high - low, 1e-6))
  return {
    'low': low,
    'high': high,
    'pairs': [_pair(split, row) for row in rows],
    'similarity': similarity,
    'shades': [[matplotlib.colors.to_hex(shade) for shade in row] for row in shades],
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


def _picture(image: np.ndarray) -> str:
  """A [S, S, 3] uint8 image as a data URI."""
  picture = Image.fromarray(image)
  picture.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE))
  file = io.BytesIO()
  picture.save(file, 'WEBP', quality=88)
  return 'data:image/webp;base64,' + base64.b64encode(file.getvalue()).decode()
