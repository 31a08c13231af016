"""The table of results.json."""

import collections
import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')


def recall(path: pathlib.Path) -> str:
  """Returns the minimum time and maximum memory of each method, and recall@1 both ways."""
  measured = collections.defaultdict(list)
  for row in records.read(path)['results']:
    measured[row['size'], row['width'], row['method']].append(row)
  rows = []
  for (size, width, method), own in sorted(measured.items()):
    times = (min(row[field] for row in own) for field in ('seconds', 'processor_seconds'))
    recalls = own[0]['recalls']
    rows.append(
      [
        *(f'{size:,}', width, method, *(f'{time:.2f}' for time in times)),
        f'{max(row["gigabytes"] for row in own):.2f}',
        f'{recalls[0]:.2%}, {recalls[len(recalls) // 2]:.2%}',
      ]
    )
  header = ['N', 'D', '', 'seconds, least', 'of all cores', 'GB beyond the embeddings']
  return records.markdown('rrlrrrr', [*header, 'recall@1, both ways'], rows)


TABLES = {'recall': functools.partial(recall, RESULTS)}
