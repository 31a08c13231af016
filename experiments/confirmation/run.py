"""Chooses three methods on a validation style, and confirms them at full length with new seeds.

python -m experiments.confirmation.run

A run has one core. Unfinished runs are resumed, and those of results.json are not repeated: delete
it to measure anew. It is written after each run.
"""

import json
import pathlib
import signal

from absl import app, flags

from experiments import records, side_by_side
from experiments.confirmation import arms, report

_WORKDIR = flags.DEFINE_string('workdir', 'runs/confirmation', 'Holds a folder per run.')


def row_of(folder: pathlib.Path) -> dict[str, float]:
  """Recall of a finished run."""
  found = json.loads((folder / side_by_side.RESULTS).read_text())
  split = 'heldout_style/' if 'heldout_style/modality_gap' in found else ''
  return {
    name.rpartition('/')[2]: value
    for name, value in found.items()
    if name.startswith(split) and name.rpartition('/')[2] in side_by_side.RECALL
  }


def main(_) -> None:
  """Trains what remains, and prints the tables."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  folder = pathlib.Path(_WORKDIR.value)
  side_by_side.measure(arms.selection(folder), report.RESULTS, row_of)
  print(report.selection(report.RESULTS))
  methods = arms.choose(records.rows(report.RESULTS))
  side_by_side.measure(arms.confirmation(methods, folder), report.RESULTS, row_of)
  print(report.confirmation(report.RESULTS))


if __name__ == '__main__':
  app.run(main)
