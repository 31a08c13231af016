"""Changes of the default run, each trained for about the same time."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import side_by_side

BASELINE = 'the recipe'

# Overrides of configs/clip.py:validation by path. Steps make up for what a change costs.
ARMS: Mapping[str, Mapping[str, Any]] = {
  BASELINE: {'total_steps': 3000},
  'milder augmentation': {
    'total_steps': 3000,
    **{f'augmentation.{name}': 0.2 for name in ('brightness', 'contrast')},
    'augmentation.shear': 8.0,
    'augmentation.stretch': 0.15,
    'augmentation.erase': 0.0,
  },
  'batches of 256, learning rate 4e-3': {
    'total_steps': 1650,
    'batch_size': 256,
    'optimizer.learning_rate': 4e-3,
  },
  'moving average of parameters, 0.998': {'total_steps': 3000, 'average_decay': 0.998},
  'captions, 30% of them tags': {
    'total_steps': 3000,
    'data.captions': 'caption*0.7+join(tags)*0.3',
  },
  'AdamW, learning rate 1e-3': {
    'total_steps': 3500,
    'optimizer.name': 'adamw',
    'optimizer.learning_rate': 1e-3,
  },
  'images of 40 pixels': {'total_steps': 1950, 'model.image.size': 40, 'data.size': 48},
  'weight decay 0.1': {'total_steps': 3000, 'optimizer.weight_decay': 0.1},
  'twice the blocks': {'total_steps': 2350, 'model.image.stem_blocks': (0, 2, 2)},
  'width 192': {
    'total_steps': 1500,
    'model.image.width': 192,
    'model.text.width': 192,
    'model.text.heads': 6,
  },
  'learning rate 2e-3': {'total_steps': 3000, 'optimizer.learning_rate': 2e-3},
}


def launch_of(arm: str, folder: pathlib.Path) -> side_by_side.Launch:
  """The run of an arm, below a folder. It is evaluated at its end alone."""
  fields = {'evaluate_every': 1_000_000, 'evaluation.probes': (), **ARMS[arm]}
  name = side_by_side.folder_name(arm)
  return side_by_side.Launch(arm, folder / name, 'configs/clip.py:validation', fields)
