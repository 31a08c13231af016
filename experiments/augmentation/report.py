"""The table of results.json."""

import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')


def milliseconds(path: pathlib.Path) -> str:
  """Returns milliseconds per batch."""
  results = records.read(path)['results']
  rows = ([name, f'{value:.1f}'] for name, value in results.items())
  return records.markdown('lr', ['', 'milliseconds per batch'], rows)


TABLES = {'milliseconds': functools.partial(milliseconds, RESULTS)}
