"""CompA and GRAM on sounds, each beside CLIP, with three seeds.

  pip install 'contrastive-jax[sound]'
  apt-get install sonic-pi-samples sound-theme-freedesktop oxygen-sounds tuxpaint-stamps-default
  python -m experiments.sounds.run

A run has one core, and takes about two minutes. Unfinished runs are resumed, and those of
results.json are not repeated: delete it to measure anew. It is written after each run.
"""

import json
import pathlib
import signal

from absl import app, flags

from experiments import side_by_side
from experiments.sounds import config, report

SEEDS = 3
_WORKDIR = flags.DEFINE_string('workdir', 'runs/sounds', 'Holds a folder per run.')


def launch_of(arm: str, seed: int, folder: pathlib.Path) -> side_by_side.Launch:
  """The run of an arm with a seed, below a folder."""
  path = f'experiments/sounds/config.py:{arm}'
  return side_by_side.Launch(f'{arm}/{seed}', folder / f'{arm}-{seed}', path, {'seed': seed})


def row_of(folder: pathlib.Path) -> dict[str, float]:
  """Recalls and accuracies of a finished run."""
  found = json.loads((folder / side_by_side.RESULTS).read_text())
  kept = report.ORDER | report.SPEECH | side_by_side.RECALL
  named = {name.rpartition('/')[2]: value for name, value in found.items()}
  return {name: named[name] for name in kept if name in named}


def main(_) -> None:
  """Trains what remains, and writes and prints the tables."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  folder = pathlib.Path(_WORKDIR.value)
  launches = [launch_of(arm, seed, folder) for seed in range(SEEDS) for arm in config.ARMS]
  side_by_side.measure(launches, report.RESULTS, row_of)
  print(*(table() for table in report.TABLES.values()), sep='\n\n')


if __name__ == '__main__':
  app.run(main)
