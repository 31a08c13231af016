"""The table and the reliability diagrams of results.json."""

import functools
import pathlib

import matplotlib
import numpy as np

from experiments import records
from experiments.calibration import arms

matplotlib.use('Agg')
from matplotlib import pyplot

RESULTS = pathlib.Path(__file__).with_name('results.json')
PLOT = pathlib.Path(__file__).with_name('reliability.png')
METRICS = {
  'accuracy': 'accuracy',
  'expected_calibration_error': 'ECE',
  'adaptive_calibration_error': 'adaptive ECE',
  'classwise_calibration_error': 'classwise ECE',
  'overconfidence': 'overconfidence',
}
COLOR = '#0072B2'  # Okabe and Ito's blue


def errors(path: pathlib.Path) -> str:
  """Returns the metrics per split and loss."""
  results = records.rows(path)
  rows = [
    [split, arms.LOSSES[name], *(f'{results[name][split][metric]:.1%}' for metric in METRICS)]
    for split in arms.SPLITS.values()
    for name in arms.LOSSES
    if name in results
  ]
  header = ['', 'loss', *METRICS.values()]
  return records.markdown('ll' + 'r' * len(METRICS), header, rows)


def plot(results: pathlib.Path, target: pathlib.Path) -> None:
  """Draws the reliability diagrams: a row per split, a column per loss.

  A bar is the accuracy of the predictions in a bin of confidence, the darker the more there are.
  """
  found = records.rows(results)
  names = [name for name in arms.LOSSES if name in found]
  figure, grid = pyplot.subplots(
    len(arms.SPLITS),
    len(names),
    figsize=(2.2 * len(names), 2.3 * len(arms.SPLITS)),
    dpi=150,
    layout='constrained',
    sharex=True,
    sharey=True,
    squeeze=False,
  )
  for split, line in zip(arms.SPLITS.values(), grid, strict=True):
    for name, axes in zip(names, line, strict=True):
      _draw(axes, found[name][split])
    line[0].set_ylabel(f'{split}\naccuracy')
  for name, axes in zip(names, grid[0], strict=True):
    axes.set_title(arms.LOSSES[name], fontsize=10)
  for axes in grid[-1]:
    axes.set_xlabel('confidence')
  figure.savefig(target)
  pyplot.close(figure)


def _draw(axes, row) -> None:
  """One diagram, with the ECE in its corner."""
  counts = np.array(row['counts'])
  edges = np.linspace(0, 1, len(counts) + 1)
  shades = [(COLOR, 0.2 + 0.8 * count / counts.max()) for count in counts]
  axes.bar(edges[:-1], row['accuracies'], 1 / len(counts), align='edge', color=shades)
  axes.plot([0, 1], [0, 1], '--', color='#555555', linewidth=1)
  axes.text(0.04, 0.9, f'ECE {row["expected_calibration_error"]:.1%}', fontsize=8)
  axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
  axes.spines[['top', 'right']].set_visible(False)


TABLES = {'errors': functools.partial(errors, RESULTS)}
