"""Recall on an unseen drawing style against the number of styles trained on.

python -m experiments.styles.run

A run has one core. Unfinished runs are resumed, and those of results.json are not repeated: delete
it to measure anew. It is written after each run, and the plot at the end.
"""

import json
import pathlib
import signal

from absl import app, flags

from experiments import side_by_side
from experiments.styles import report, subsets

_WORKDIR = flags.DEFINE_string('workdir', 'runs/styles', 'Holds a folder per run.')


def row_of(folder: pathlib.Path) -> dict[str, float]:
  """Recall of a finished run."""
  found = json.loads((folder / side_by_side.RESULTS).read_text())
  return {name: found[f'{subsets.HELDOUT}/{name}'] for name in side_by_side.RECALL}


def main(_) -> None:
  """Trains what remains, and writes and prints the table and the plot."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  folder = pathlib.Path(_WORKDIR.value)
  subsets.prepare(folder / 'data')
  launches = [subsets.launch_of(styles, folder) for styles in subsets.SUBSETS]
  side_by_side.measure(launches, report.RESULTS, row_of)
  print(report.styles(report.RESULTS))
  report.plot(report.RESULTS, report.PLOT)


if __name__ == '__main__':
  app.run(main)
