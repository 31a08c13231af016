"""Tries changes of a first recipe on a style that is not the held-out one.

  python -m experiments.recipe.run
  python -m experiments.recipe.run 'weight decay 0.1' 'width 192'      some of the changes

A run has one core, and takes about the time of 3,000 steps of the first recipe, whatever a step
costs. Unfinished runs are resumed, and those of results.json are not repeated: delete it to measure
anew. It is written after each run.
"""

import json
import pathlib
import signal

from absl import app, flags

from experiments import side_by_side
from experiments.recipe import arms, report

_WORKDIR = flags.DEFINE_string('workdir', 'runs/recipe', 'Holds a folder per run.')


def row_of(folder: pathlib.Path) -> dict[str, float]:
  """Recall of a finished run."""
  found = json.loads((folder / side_by_side.RESULTS).read_text())
  return {name.rpartition('/')[2]: value for name, value in found.items() if 'recall@1' in name}


def main(arguments: list[str]) -> None:
  """Trains what remains, and writes and prints the table."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  folder = pathlib.Path(_WORKDIR.value)
  launches = [arms.launch_of(arm, folder) for arm in arguments[1:] or arms.ARMS]
  side_by_side.measure(launches, report.RESULTS, row_of)
  print(report.recipe(report.RESULTS))


if __name__ == '__main__':
  app.run(main)
