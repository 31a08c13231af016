"""CompA and GRAM on sounds, each beside CLIP, with three seeds.

  pip install 'contrastive-jax[sound]'
  apt-get install sonic-pi-samples sound-theme-freedesktop oxygen-sounds tuxpaint-stamps-default
  python -m experiments.sounds.run

A run has one core, and takes about two minutes. Unfinished runs are resumed, and those of
results.json are not repeated: delete it to measure anew. It is written after each run.
"""

import pathlib
import signal

from absl import app, flags

from experiments import side_by_side
from experiments.sounds import arms, report

_WORKDIR = flags.DEFINE_string('workdir', 'runs/sounds', 'Holds a folder per run.')


def main(_) -> None:
  """Trains what remains, and writes and prints the tables."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  folder = pathlib.Path(_WORKDIR.value)
  launches = [arms.launch_of(arm, seed, folder) for seed in range(arms.SEEDS) for arm in arms.ARMS]
  side_by_side.measure(launches, report.RESULTS, arms.row_of)
  print(*(table() for table in report.TABLES.values()), sep='\n\n')


if __name__ == '__main__':
  app.run(main)
