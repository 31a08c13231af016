"""The table of results.json."""

import collections
import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')

TASKS = {'recall': 'recall, both ways', 'neighbors': '20 nearest', 'product': 'one product'}


def speed(path: pathlib.Path) -> str:
  """Returns the minimum time of each method, in ratio to the others, and the maximum memory."""
  measured = collections.defaultdict(list)
  for row in records.read(path)['results']:
    measured[row['size'], row['width'], row['task'], row['method']].append(row)
  least = {key: min(row['seconds'] for row in own) for key, own in measured.items()}
  rows = []
  for (size, width, task, method), own in sorted(measured.items()):
    of_faiss = _ratio(least, (size, width, task, method), (size, width, task, 'faiss'))
    of_product = _ratio(least, (size, width, task, method), (size, width, 'product', 'ours'))
    busy, gigabytes = (
      extreme(row[field] for row in own)
      for extreme, field in ((min, 'processor_seconds'), (max, 'gigabytes'))
    )
    seconds = f'{least[size, width, task, method]:.2f}', f'{busy:.2f}'
    names = TASKS[task], 'blocks alone' if task == 'product' else method
    rows.append(
      [f'{size:,}', width, *names, *seconds, of_faiss, of_product, f'{gigabytes:.2f}', _found(own)]
    )
  header = ['N', 'D', '', '', 'seconds, least', 'of all cores', 'of faiss', 'of one product']
  return records.markdown('rrllrrrrrr', [*header, 'GB beyond the embeddings', 'found'], rows)


def _ratio(least, own, other) -> str:
  """The ratio of two times, if both are measured and differ in what they are."""
  return f'{least[own] / least[other]:.2f}' if own != other and other in least else ''


def _found(rows) -> str:
  """The recall@1 in both directions, or the mean product with the 20th neighbor."""
  found = rows[0]['found']
  if rows[0]['task'] == 'recall':
    return f'{found[0]:.2%}, {found[len(found) // 2]:.2%}'
  return f'{found[0]:.6f}' if found else ''


TABLES = {'speed': functools.partial(speed, RESULTS)}
