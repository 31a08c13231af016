"""The tables of results.json, results_avx2.json and from_shards.json."""

import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')
AVX2 = RESULTS.with_name('results_avx2.json')
FROM_SHARDS = RESULTS.with_name('from_shards.json')
DTYPES = 'float32', 'bfloat16'


def rates(path: pathlib.Path) -> str:
  """Returns images per second by pair and system, and the ratio of the better dtypes."""
  return _table(path, lambda rate: (rate, f'{rate:,.0f}'))


def from_shards(path: pathlib.Path) -> str:
  """Returns the same for training from shards, with the best number of workers."""

  def best(rates):
    workers = max(rates, key=rates.get)
    return rates[workers], f'{rates[workers]:,.0f} ({workers})'

  return _table(path, best)


def _table(path, read) -> str:
  """The table; `read` returns the number of a cell and what it shows."""
  rows = []
  for model, systems in records.read(path)['results'].items():
    cells = {
      name: [read(row[dtype]) if dtype in row else (0, '') for dtype in DTYPES]
      for name, row in systems.items()
    }
    better = {name: max(cells[name])[0] for name in systems}
    for name, row in systems.items():
      ratio = f'{better[name] / better["open_clip"]:.2f}x' if 'open_clip' in better else ''
      shown = [text for _, text in cells[name]]
      rows.append([model, name, f'{row["parameters"]:,}', *shown, ratio])
  header = ['pair', 'system', 'parameters', *DTYPES, 'better dtype, to open_clip']
  return records.markdown('llrrrr', header, rows)


TABLES = {
  'rates': functools.partial(rates, RESULTS),
  'rates_avx2': functools.partial(rates, AVX2),
  'from_shards': functools.partial(from_shards, FROM_SHARDS),
}
