"""The table of results.json."""

import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')


def rates(path: pathlib.Path) -> str:
  """Returns images per second by pair and system, and the ratio of the better dtypes."""
  rows = []
  for model, systems in records.read(path)['results'].items():
    better = {name: max(row['float32'], row['bfloat16']) for name, row in systems.items()}
    for name, row in systems.items():
      ratio = f'{better[name] / better["open_clip"]:.2f}x' if 'open_clip' in better else ''
      numbers = (f'{row[field]:,.0f}' for field in ('parameters', 'float32', 'bfloat16'))
      rows.append([model, name, *numbers, ratio])
  header = ['pair', 'system', 'parameters', 'float32', 'bfloat16', 'better dtype, to open_clip']
  return records.markdown('llrrrr', header, rows)


TABLES = {'rates': functools.partial(rates, RESULTS)}
