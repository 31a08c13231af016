"""The table of results.json."""

import functools
import math
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')
HEADER = (
  *('groups', 'devices that exchange', 'method', 'temporaries per device', 'sent per device'),
  'collectives',
)


def costs(path: pathlib.Path) -> str:
  """Returns a row per number of groups and method."""
  measured = records.read(path)['results']
  rows = []
  for row in measured['rows']:
    devices = measured['devices'] // math.gcd(row['groups'], measured['devices'])
    cells = [f'{row[name] / 2**20:,.1f} MiB' for name in ('temporaries', 'sent')]
    exchange = devices if devices > 1 else 'none'
    rows.append([row['groups'], exchange, row['method'], *cells, row['collectives']])
  return records.markdown('rrlrrr', HEADER, rows)


TABLES = {'costs': functools.partial(costs, RESULTS)}
