"""Draws the masks that a run of HPM chooses, and what it reconstructs.

  python -m experiments.masks.run --workdir=runs/hpm-default

Writes docs/masks.png, of held-out emoji.
"""

import pathlib

import jax
from absl import app, flags

from contrastive_jax.data.images import normalizer
from contrastive_jax.training import restore, workdir
from experiments.masks import figure

_WORKDIR = flags.DEFINE_string('workdir', 'runs/hpm-default', 'A run of configs/methods/hpm.py.')


def main(_) -> None:
  """Restores the model of the run, and writes the figure."""
  folder = pathlib.Path(_WORKDIR.value)
  config = workdir.upgrade(workdir.read_config(folder))
  run = restore.open_run(config, folder, jax.devices()[:1])
  model = run.definition.bind(restore.restore_parameters(run, folder).parameters)
  normalize = normalizer(config.data.get('mean', ()), config.data.get('std', ()))
  share = config.objective.hpm.hard
  figure.draw_figure(figure.read_images(config.model.image.size), model, normalize, share).savefig(
    figure.PLOT
  )


if __name__ == '__main__':
  app.run(main)
