"""Tables and plots of results.jsonl."""

import json

import matplotlib
import numpy as np

from experiments.loss_scaling import methods

matplotlib.use('Agg')
from matplotlib import pyplot, ticker

LIMIT = 'four matmuls'
BUDGET = 8 * 2**30  # a tenth of an 80 GB accelerator
FITTED = 4  # number of largest batches for the fit of growth

# Okabe and Ito's colors, each with a marker, distinguishable without color.
STYLES = {
  'dense': {'color': '#D55E00', 'marker': 'o'},
  'all-gather': {'color': '#0072B2', 'marker': 's', 'markersize': 9, 'markerfacecolor': 'none'},
  'ours': {'color': '#009E73', 'marker': 'D'},
  LIMIT: {'color': '#555555', 'marker': 'x', 'linestyle': 'none'},
}
LABELS = {
  'dense': 'dense, sharded by the compiler',
  'all-gather': 'all-gather with local rows',
  'ours': 'ours, streamed in a ring',
  LIMIT: 'four block matmuls alone, measured',
}
BOUND = {'color': '#555555', 'linestyle': '--', 'linewidth': 1.2}


def read(results, measured, devices=None):
  """The rows of one kind of measurement; of all numbers of devices by default."""
  if not results.exists():
    return []
  rows = map(json.loads, results.read_text().splitlines())
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


def print_tables(results):
  """The README's tables, in Markdown."""
  memory = series(read(results, 'memory'), 'bytes')
  seconds = series(read(results, 'time'), 'seconds')
  if memory:
    print_memory(memory, {_place(row): row for row in read(results, 'memory')})
    print_fitting(memory)
  if seconds:
    print_time(seconds, {_place(row): row for row in read(results, 'time')})
    for row in read(results, 'rate'):
      print(f'\nMatmul rate, devices = {row["devices"]}: {row["flops"] / 1e9:.0f} GFLOP/s')
  print_growth({'memory': memory, 'time': seconds})


def print_memory(memory, rows):
  """Compiled temporaries per device, for every second batch."""
  _head('devices', 'batch', *methods.METHODS, 'embeddings and gradients')
  for devices, by_method in memory.items():
    for batch in sorted(set().union(*by_method.values()))[::2]:
      cells = [_cell(rows, devices, batch, name, 'bytes', _bytes) for name in methods.METHODS]
      _line(devices, f'{batch:,}', *cells, _bytes(own_bytes(batch, devices)))


def print_fitting(memory):
  """The largest measured batch whose temporaries fit."""
  print()
  _head('devices', *methods.METHODS)
  for devices, by_method in memory.items():
    cells = []
    for name in methods.METHODS:
      points = by_method.get(name, {})
      fitting = [batch for batch, value in points.items() if value <= BUDGET]
      more = ' or more' if fitting and max(fitting) == max(points) else ''
      cells.append(f'{max(fitting):,}{more}' if fitting else 'none')
    _line(devices, *cells)


def print_time(seconds, rows):
  """Seconds of each method, and the ratio of ours to the others."""
  others = ('dense', 'all-gather', LIMIT)
  print()
  _head('devices', 'batch', *methods.METHODS, LIMIT, *(f'ours / {name}' for name in others))
  for devices, by_method in seconds.items():
    for batch in sorted(set().union(*by_method.values())):
      names = (*methods.METHODS, LIMIT)
      cells = [_cell(rows, devices, batch, name, 'seconds', _seconds) for name in names]
      ours = by_method.get('ours', {}).get(batch)
      for name in others:
        theirs = by_method.get(name, {}).get(batch)
        cells.append(f'{ours / theirs:.2f}' if ours and theirs else '')
      _line(devices, f'{batch:,}', *cells)


def print_growth(measured):
  """The exponents of the batch."""
  print()
  _head('grows with the batch to the power of', 'devices', *methods.METHODS)
  for name, by_devices in measured.items():
    for devices, by_method in by_devices.items():
      exponents = [growth(by_method.get(method, {})) for method in methods.METHODS]
      _line(name, devices, *('' if value is None else f'{value:.2f}' for value in exponents))


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


def _head(*names):
  _line(*names)
  print('|' + '---:|' * len(names))


def _line(*cells):
  print('| ' + ' | '.join(map(str, cells)) + ' |')


def _bytes(value, digits=1):
  units = ('B', 'KiB', 'MiB', 'GiB', 'TiB')
  power = min(int(np.log2(max(value, 1)) // 10), len(units) - 1)
  return f'{value / 2 ** (10 * power):,.{digits}f} {units[power]}'


def _seconds(value):
  return f'{value:.3g}'


def _batch(value):
  return f'{value / 2**20:g}M' if value >= 2**20 else f'{value / 2**10:g}k'
