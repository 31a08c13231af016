"""The tables of results.json and convert.json."""

import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')
CONVERSIONS = RESULTS.with_name('convert.json')


def rates(path: pathlib.Path) -> str:
  """Returns images per second by source, and their ratios to raw decoding and to the peer."""
  results, rows = records.read(path)['results'], []
  raw, peer = results['raw decoding'], results.get('webdataset with torch')
  for name, rate in results.items():
    cells = [cell for w in raw for cell in (f'{rate[w]:,.0f}', f'{rate[w] / raw[w]:.0%}')]
    ratios = (f'{rate[w] / peer[w]:.2f}x' for w in raw) if peer else ()
    rows.append([name, *cells, ', '.join(ratios)])
  header = ['', '1 worker', 'of raw', '2 workers', 'of raw', 'to webdataset with torch']
  return records.markdown('lrrrrr', header, rows)


def conversions(path: pathlib.Path) -> str:
  """Returns examples per second that `data.convert` writes, by source."""
  rows = [
    [name, *(f'{rate[workers]:,.0f}' for workers in ('1', '2'))]
    for name, rate in records.read(path)['results'].items()
  ]
  return records.markdown('lrr', ['to ArrayRecord from', '1 worker', '2 workers'], rows)


TABLES = {
  'rates': functools.partial(rates, RESULTS),
  'conversions': functools.partial(conversions, CONVERSIONS),
}
