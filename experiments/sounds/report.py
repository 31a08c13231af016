"""The tables of results.json."""

import functools
import pathlib
import statistics
from collections.abc import Mapping

from experiments import records
from experiments.side_by_side import RECALL
from experiments.sounds import arms

RESULTS = pathlib.Path(__file__).with_name('results.json')


def table(path: pathlib.Path, data: str, metrics: Mapping[str, str]) -> str:
  """Returns the mean and the range over seeds of the arms of a data set.

  Args:
    path: results, rows by 'ARM/SEED'; a missing file has none.
    data: the data set, see `arms.ARMS`.
    metrics: names of columns by metric.
  """
  results = records.rows(path)
  rows = []
  for arm, (own, method) in arms.ARMS.items():
    found = [row for name, row in results.items() if name.split('/')[0] == arm]
    if own != data or not found:
      continue
    cells = []
    for metric in metrics:
      values = [row[metric] for row in found if metric in row]
      spread = f' ({min(values):.1%} to {max(values):.1%})' if len(values) > 1 else ''
      cells.append(f'{statistics.mean(values):.1%}{spread}' if values else '')
    rows.append([method, len(found), *cells])
  return records.markdown('lr' + 'r' * len(metrics), ['', 'seeds', *metrics.values()], rows)


TABLES = {
  'sounds': functools.partial(table, RESULTS, data='composed sounds', metrics=arms.ORDER | RECALL),
  'stamps': functools.partial(table, RESULTS, data='stamps', metrics=RECALL | arms.SPEECH),
}
