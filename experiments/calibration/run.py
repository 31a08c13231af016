"""Calibration of classifiers by cross-entropy, mixup, MRL and M-NDCG.

python -m experiments.calibration.run

A run has one core, and takes a minute or two. Unfinished runs are resumed, and those of
results.json are not repeated: delete it to measure anew. It is written after each run, and the
diagrams at the end.
"""

import pathlib
import signal

from absl import app, flags

from experiments import side_by_side
from experiments.calibration import arms, report

_WORKDIR = flags.DEFINE_string('workdir', 'runs/calibration', 'Holds a folder per run.')


def main(_) -> None:
  """Trains what remains, writes and prints the table, and draws the diagrams."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  folder = pathlib.Path(_WORKDIR.value)
  launches = [arms.launch_of(name, folder) for name in arms.LOSSES]
  side_by_side.measure(launches, report.RESULTS, arms.row_of)
  print(report.errors(report.RESULTS))
  report.plot(report.RESULTS, report.PLOT)


if __name__ == '__main__':
  app.run(main)
