"""The table of results.json."""

import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')


def memory(path: pathlib.Path) -> str:
  """Returns the memory of the compiled step by micro-batches."""
  measured, rows = records.read(path)['results']['memory'], []
  for parts, row in measured.items():
    total = _total(row)
    gib = f'{row["temporaries"] / 2**30:.2f}', f'{total / 2**30:.2f}'
    rows.append([parts, *gib, f'{_total(measured["1"]) / total:.1f}'])
  header = ['micro-batches', 'temporaries, GiB', 'in all, GiB', 'times less']
  return records.markdown('rrrr', header, rows)


def _total(row: dict[str, float]) -> float:
  return row['arguments'] + row['temporaries']


TABLES = {'memory': functools.partial(memory, RESULTS)}
