"""The tables of results.json."""

import functools
import pathlib
import re

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')
FIELDS = ('fault', 'step', 'status', 'devices', 'damage')


def differences(path: pathlib.Path) -> str:
  """Returns the differences of the final states to that of the undisturbed run."""
  results = records.read(path)['results']
  rows = [
    [measure, *(f'{result["differences"][measure]:.3g}' for result in results.values())]
    for measure in results['same devices']['differences']
  ]
  return records.markdown('lrr', ['', *results], rows)


def faults(path: pathlib.Path, run: str) -> str:
  """Returns the faults of a run, with shortened names of files."""
  rows = [
    [re.sub(r'(?<=[0-9a-f]{6})[0-9a-f]{26}', '…', str(fault.get(field, ''))) for field in FIELDS]
    for fault in records.read(path)['results'][run]['faults']
  ]
  return records.markdown('lrrrl', ['fault', 'at step', 'exit status', 'devices', 'damage'], rows)


TABLES = {
  'differences': functools.partial(differences, RESULTS),
  'same-devices': functools.partial(faults, RESULTS, run='same devices'),
  'other-devices': functools.partial(faults, RESULTS, run='other devices'),
}
