"""The tables of results.json."""

import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')


LIBRARIES = {
  'PIL': 'Pillow',
  'cv2': 'OpenCV',
  'simplejpeg': 'simplejpeg',
  'pyspng': 'pyspng',
  'imagecodecs': 'imagecodecs',
}


def speed(path: pathlib.Path) -> str:
  """Returns images per second of CPU time by image and library."""
  rows = []
  for image, measured in records.read(path)['results']['speed'].items():
    rates = measured['a core']
    for scale in ('', ', shrunk', ', shrunk further'):
      cells = [_rate(rates.get(f'{library}{scale}')) for library in LIBRARIES]
      if any(cells):
        rows.append([f'{image}{scale}', *cells])
  return records.markdown('lrrrrr', ['', *LIBRARIES.values()], rows)


def awkward(path: pathlib.Path) -> str:
  """Returns how each library reads awkward files, compared to `images.decode`."""
  rows = [
    [file.replace('grey', 'gray'), *(_outcome(outcomes.get(library, '')) for library in LIBRARIES)]
    for file, outcomes in records.read(path)['results']['awkward'].items()
  ]
  return records.markdown('llllll', ['', *LIBRARIES.values()], rows)


def _rate(value: float | None) -> str:
  return '' if value is None else f'{value:.1f}' if value < 200 else f'{value:.0f}'


def _outcome(outcome: str) -> str:
  """Words the mean distance of pixels; a failure is worded already."""
  if not outcome.replace('.', '').isdigit():
    return outcome
  return f'{float(outcome):.0f} of 255 off' if float(outcome) else 'same'


TABLES = {
  'speed': functools.partial(speed, RESULTS),
  'awkward': functools.partial(awkward, RESULTS),
}
