"""The table and the plot of results.json."""

import functools
import pathlib
import statistics

import matplotlib

from experiments import records
from experiments.side_by_side import RECALL
from experiments.styles import subsets

matplotlib.use('Agg')
from matplotlib import pyplot

RESULTS = pathlib.Path(__file__).with_name('results.json')
PLOT = pathlib.Path(__file__).with_name('styles.png')
# Okabe and Ito's colors.
COLORS, MARKERS = ('#0072B2', '#D55E00'), ('o', 's')


def by_size(path: pathlib.Path, metric: str) -> dict[int, list[float]]:
  """Returns the recall of the runs by their number of styles."""
  found: dict[int, list[float]] = {}
  for name, row in records.read(path)['results'].items():
    found.setdefault(len(name.split('+')), []).append(row[metric])
  return dict(sorted(found.items()))


def styles(path: pathlib.Path) -> str:
  """Returns the mean recall, and its range over subsets, per number of styles."""
  values = {metric: by_size(path, metric) for metric in RECALL}
  rows = []
  for size in values[next(iter(RECALL))]:
    cells = []
    for metric in RECALL:
      own = values[metric][size]
      spread = f' ({min(own):.1%} to {max(own):.1%})' if len(own) > 1 else ''
      cells.append(f'{statistics.mean(own):.1%}{spread}')
    rows.append([size, len(own), *cells])
  return records.markdown('rrrr', ['styles', 'subsets', *RECALL.values()], rows)


def single_styles(path: pathlib.Path) -> str:
  """Returns the recall of each style alone, and without it."""
  results = records.read(path)['results']
  rows = []
  for style in subsets.STYLES:
    others = '+'.join(other for other in subsets.STYLES if other != style)
    found = [results.get(name, {}) for name in (style, others)]
    if any(found):
      rows.append([style, *(f'{row[m]:.1%}' if row else '' for row in found for m in RECALL)])
  header = ['', *(f'{who}: {way}' for who in ('alone', 'all others') for way in RECALL.values())]
  return records.markdown('lrrrr', header, rows)


def plot(results: pathlib.Path, target: pathlib.Path) -> None:
  """Draws recall against the number of styles, a point per subset, a line through the means."""
  figure, axes = pyplot.subplots(figsize=(6.4, 4), dpi=150, layout='constrained')
  for (metric, label), color, marker in zip(RECALL.items(), COLORS, MARKERS, strict=True):
    values = by_size(results, metric)
    offset = 0.08 if marker == 's' else -0.08
    for size, own in values.items():
      axes.plot(
        [size + offset] * len(own),
        [100 * value for value in own],
        marker,
        color=color,
        alpha=0.35,
        markeredgewidth=0,
      )
    means = [100 * statistics.mean(own) for own in values.values()]
    axes.plot([size + offset for size in values], means, marker=marker, color=color, label=label)
  axes.set_xlabel('styles in training')
  axes.set_ylabel('recall@1 on the held-out style, %')
  axes.set_ylim(bottom=0)
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(axis='y', color='#e4e8ec')
  axes.legend(frameon=False, loc='lower right')
  figure.savefig(target)
  pyplot.close(figure)


TABLES = {
  'styles': functools.partial(styles, RESULTS),
  'single_styles': functools.partial(single_styles, RESULTS),
}
