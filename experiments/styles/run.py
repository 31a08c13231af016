"""Recall on an unseen drawing style against the number of styles trained on.

python -m experiments.styles.run

A run has one core. Unfinished runs are resumed, and those of results.json are not repeated: delete
it to measure anew. It is written after each run, and the plot at the end.
"""

import json
import pathlib
import signal

from absl import app, flags

from experiments import records, side_by_side
from experiments.styles import report, subsets

_WORKDIR = flags.DEFINE_string('workdir', 'runs/styles', 'Holds a folder per run.')


def measured(folder: pathlib.Path) -> dict[str, float] | None:
  """Recall of a finished run; None if it is not finished."""
  path = folder / 'results.json'
  if not path.exists():
    return None
  found = json.loads(path.read_text())
  return {name: found[f'{subsets.HELDOUT}/{name}'] for name in report.METRICS}


def main(_) -> None:
  """Trains what remains, and writes and prints the table and the plot."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  folder = pathlib.Path(_WORKDIR.value)
  subsets.prepare(folder / 'data')
  launches = [subsets.launch_of(styles, folder) for styles in subsets.SUBSETS]
  known = records.read(report.RESULTS)['results'] if report.RESULTS.exists() else {}

  def write() -> None:
    found = {launch.name: measured(launch.folder) for launch in launches}
    results = known | {name: row for name, row in found.items() if row}
    records.write(report.RESULTS, results, resumed=True)

  remaining = [launch for launch in launches if launch.name not in known]
  side_by_side.train_all(remaining, len(side_by_side.CORES), write)
  print(report.styles(report.RESULTS))
  report.plot(report.RESULTS, report.PLOT)


if __name__ == '__main__':
  app.run(main)
