"""Tables and plots of results.json."""

import functools
import pathlib

import matplotlib
import numpy as np

from experiments import records
from experiments.loss_scaling import methods

matplotlib.use('Agg')
from matplotlib import pyplot, ticker

RESULTS = pathlib.Path(__file__).with_name('results.json')
LIMIT = 'four matmuls'  # of ours
DENSE_LIMIT = 'three matmuls'  # of dense
BUDGET = 8 * 2**30  # a tenth of an 80 GB accelerator
FITTED = 4  # number of largest batches for the fit of growth

# Okabe and Ito's colors, each with a marker, distinguishable without color.
STYLES = {
  'dense': {'color': '#D55E00', 'marker': 'o'},
  'all-gather': {'color': '#0072B2', 'marker': 's', 'markersize': 9, 'markerfacecolor': 'none'},
  'ours': {'color': '#009E73', 'marker': 'D'},
  'ring': {'color': '#CC79A7', 'marker': 'v', 'markersize': 8, 'markerfacecolor': 'none'},
  LIMIT: {'color': '#555555', 'marker': 'x', 'linestyle': 'none'},
}
LABELS = {
  'dense': 'dense, sharded by the compiler',
  'all-gather': 'all-gather with local rows',
  'ours': 'ours, streamed in a ring of groups',
  'ring': 'ours, in a ring of single devices',
  LIMIT: 'four block matmuls alone, measured',
}
BOUND = {'color': '#555555', 'linestyle': '--', 'linewidth': 1.2}


def read(results, measured, devices=None):
  """The rows of one kind of measurement; of all numbers of devices by default."""
  if not results.exists():
    return []
  rows = records.read(results)['results']
  return [row for row in rows if row['measured'] == measured and devices in (None, row['devices'])]


def series(rows, value):
  """{devices: {method: {batch: value}}} of the rows that have it."""
  found = {}
  for row in rows:
    if value in row:
      methods_of = found.setdefault(row['devices'], {})
      methods_of.setdefault(row['method'], {})[row['batch']] = row[value]
  return found


def own_bytes(batch, devices):
  """Returns the bytes of image, text and their gradients per device."""
  return 4 * batch * methods.EMBEDDING * 4 / devices


def growth(points):
  """Fits the exponent of the batch in {batch: value} over the largest; None for too few."""
  batches = sorted(points)[-FITTED:]
  if len(batches) < 2:
    return None
  return float(np.polyfit(np.log(batches), np.log([points[batch] for batch in batches]), 1)[0])


def temporaries(results):
  """Returns the table of compiled temporaries per device, for every second batch."""
  rows = {_place(row): row for row in read(results, 'memory')}
  lines = []
  for devices, by_method in series(rows.values(), 'bytes').items():
    for batch in sorted(set().union(*by_method.values()))[::2]:
      cells = [_cell(rows, devices, batch, name, 'bytes', _bytes) for name in methods.METHODS]
      lines.append([devices, f'{batch:,}', *cells, _bytes(own_bytes(batch, devices))])
  header = ['devices', 'batch', *methods.METHODS, 'embeddings and gradients']
  return records.markdown('r' * len(header), header, lines)


def fitting(results):
  """Returns the table of the largest measured batch whose temporaries fit."""
  lines = []
  for devices, by_method in series(read(results, 'memory'), 'bytes').items():
    cells = []
    for name in methods.METHODS:
      points = by_method.get(name, {})
      batches = [batch for batch, value in points.items() if value <= BUDGET]
      more = ' or more' if batches and max(batches) == max(points) else ''
      cells.append(f'{max(batches):,}{more}' if batches else 'none')
    lines.append([devices, *cells])
  header = ['devices', *methods.METHODS]
  return records.markdown('r' * len(header), header, lines)


def times(results):
  """Returns the table of seconds of each method, and the ratio of ours to the others."""
  rows = {_place(row): row for row in read(results, 'time')}
  names, lines = (*methods.METHODS, LIMIT, DENSE_LIMIT), []
  ratios = [('ours', 'dense'), ('ours', 'all-gather'), ('ours', 'ring'), ('ours', LIMIT)]
  ratios.append(('dense', DENSE_LIMIT))
  for devices, by_method in series(rows.values(), 'seconds').items():
    for batch in sorted(set().union(*by_method.values())):
      cells = [_cell(rows, devices, batch, name, 'seconds', _seconds) for name in names]
      for pair in ratios:
        own, other = (by_method.get(name, {}).get(batch) for name in pair)
        cells.append(f'{own / other:.2f}' if own and other else '')
      lines.append([devices, f'{batch:,}', *cells])
  header = ['devices', 'batch', *names, *(f'{own} / {other}' for own, other in ratios)]
  return records.markdown('r' * len(header), header, lines)


def exponents(results):
  """Returns the table of the exponents of the batch."""
  lines = []
  for name, value in (('memory', 'bytes'), ('time', 'seconds')):
    for devices, by_method in series(read(results, name), value).items():
      fitted = [growth(by_method.get(method, {})) for method in methods.METHODS]
      lines.append([name, devices, *('' if e is None else f'{e:.2f}' for e in fitted)])
  header = ['grows with the batch to the power of', 'devices', *methods.METHODS]
  return records.markdown('l' + 'r' * (len(header) - 1), header, lines)


def draw(results, folder):
  """Draws memory.png and time.png."""
  memory = series(read(results, 'memory'), 'bytes')
  seconds = series(read(results, 'time'), 'seconds')
  if memory:
    figure, axes = _panels(memory, methods.METHODS, 'loss temporaries per device')
    for panel, (devices, by_method) in zip(axes, memory.items(), strict=True):
      batches = np.array(sorted(set().union(*by_method.values())))
      bound = own_bytes(batches, devices)
      panel.plot(batches, bound, label='the embeddings and their gradients themselves', **BOUND)
    axes[0].yaxis.set_major_locator(ticker.LogLocator(base=2**5, numticks=12))
    axes[0].yaxis.set_major_formatter(lambda value, _: _bytes(value, 0))
    _save(figure, axes, folder / 'memory.png')
  if seconds:
    rates = {row['devices']: row['flops'] for row in read(results, 'rate')}
    figure, axes = _panels(seconds, (*methods.METHODS, LIMIT), 'seconds, value and gradients')
    for panel, (devices, by_method) in zip(axes, seconds.items(), strict=True):
      batches = np.array(sorted(set().union(*by_method.values())), float)
      bound = 8 * batches**2 * methods.EMBEDDING / rates[devices]
      panel.plot(batches, bound, label='four matmuls at the measured matmul rate', **BOUND)
    axes[0].yaxis.set_major_formatter(lambda value, _: f'{value:g} s')
    _save(figure, axes, folder / 'time.png')


def _panels(measured, names, label):
  """Draws a log-log panel per number of devices, with one line per method."""
  figure, axes = pyplot.subplots(
    1, len(measured), figsize=(3.4 * len(measured) + 1, 4.2), sharey=True, squeeze=False
  )
  for panel, (devices, by_method) in zip(axes[0], measured.items(), strict=True):
    for name in names:
      points = sorted(by_method.get(name, {}).items())
      style = {'linewidth': 1.8, 'markersize': 5} | STYLES[name]
      if points:
        panel.plot(*zip(*points, strict=True), label=LABELS[name], **style)
    panel.set_xscale('log', base=2)
    panel.set_yscale('log')
    panel.xaxis.set_major_locator(ticker.LogLocator(base=4, numticks=12))
    panel.xaxis.set_major_formatter(lambda value, _: _batch(value))
    panel.yaxis.set_minor_locator(ticker.NullLocator())
    panel.set_title(f'{devices} device' + 's' * (devices > 1), fontsize=11)
    panel.set_xlabel('batch')
    panel.grid(color='#DDDDDD', linewidth=0.6)
    panel.spines[['top', 'right']].set_visible(False)
  axes[0, 0].set_ylabel(label)
  return figure, axes[0]


def _save(figure, axes, path):
  figure.legend(
    *axes[0].get_legend_handles_labels(), loc='upper center', ncols=2, frameon=False, fontsize=10
  )
  figure.tight_layout(rect=(0, 0, 1, 0.86))
  figure.savefig(path, dpi=150, metadata={'Software': None})
  pyplot.close(figure)


def _place(row):
  return row['devices'], row['batch'], row['method']


def _cell(rows, devices, batch, method, value, form):
  """Formats a measurement, or the reason for its absence."""
  row = rows.get((devices, batch, method), {})
  return form(row[value]) if value in row else row.get('left_out', row.get('failure', ''))


def _bytes(value, digits=1):
  units = ('B', 'KiB', 'MiB', 'GiB', 'TiB')
  power = min(int(np.log2(max(value, 1)) // 10), len(units) - 1)
  return f'{value / 2 ** (10 * power):,.{digits}f} {units[power]}'


def _seconds(value):
  return f'{value:.3g}'


def _batch(value):
  return f'{value / 2**20:g}M' if value >= 2**20 else f'{value / 2**10:g}k'


TABLES = {
  'temporaries': functools.partial(temporaries, RESULTS),
  'fitting': functools.partial(fitting, RESULTS),
  'times': functools.partial(times, RESULTS),
  'exponents': functools.partial(exponents, RESULTS),
}
