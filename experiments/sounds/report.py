"""The tables of results.json."""

import functools
import pathlib
import statistics
from collections.abc import Mapping

from experiments import records
from experiments.side_by_side import RECALL
from experiments.sounds import config

RESULTS = pathlib.Path(__file__).with_name('results.json')
ORDER = {
  'order_pairs_text_accuracy': 'order, sound to text',
  'order_pairs_image_accuracy': 'order, text to sound',
  'order_pairs_group_accuracy': 'order, both',
}
SPEECH = {
  'audio_to_image_recall@1': 'speech to picture',
  'audio_to_text_recall@1': 'speech to text',
}


def table(path: pathlib.Path, data: str, metrics: Mapping[str, str]) -> str:
  """Returns the mean and the range over seeds of the arms of a data set.

  Args:
    path: results, rows by 'ARM/SEED'; a missing file has none.
    data: the data set, see `config.ARMS`.
    metrics: names of columns by metric.
  """
  results = records.read(path)['results'] if path.exists() else {}
  rows = []
  for arm, (own, method) in config.ARMS.items():
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
  'sounds': functools.partial(table, RESULTS, data='composed sounds', metrics=ORDER | RECALL),
  'stamps': functools.partial(table, RESULTS, data='stamps', metrics=RECALL | SPEECH),
}
