"""The table of results.json."""

import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')


def seconds(path: pathlib.Path) -> str:
  """Returns seconds with and without a cache."""
  rows = [
    [
      layers,
      f'{row["cached"]:.2f}',
      f'{row["uncached"]:.2f}',
      f'{row["uncached"] / row["cached"]:.1f}x',
      f'{row["equal_captions"]:.0%}',
    ]
    for layers, row in records.read(path)['results'].items()
  ]
  header = ['layers', 'cached, seconds', 'uncached, seconds', 'faster', 'equal captions']
  return records.markdown('lrrrr', header, rows)


TABLES = {'seconds': functools.partial(seconds, RESULTS)}
