"""Changes of a first recipe, each trained for about the same time."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import side_by_side

BASELINE = 'first recipe'
CHOSEN = 'batches of 256, milder augmentation'

# Overrides of configs/clip.py:validation by path.
FIRST: Mapping[str, Any] = {
  'total_steps': 3000,
  'batch_size': 128,
  'optimizer.name': 'muon',
  'optimizer.learning_rate': 3e-3,
  'optimizer.weight_decay': 0.5,
  'model.image.stem_blocks': (0, 1, 1),
  'augmentation.brightness': 0.4,
  'augmentation.contrast': 0.4,
  'augmentation.shear': 15.0,
  'augmentation.stretch': 0.3,
  'augmentation.erase': 0.2,
}
MILDER = {
  'augmentation.brightness': 0.2,
  'augmentation.contrast': 0.2,
  'augmentation.shear': 8.0,
  'augmentation.stretch': 0.15,
  'augmentation.erase': 0.0,
}
LARGER = {'total_steps': 1650, 'batch_size': 256, 'optimizer.learning_rate': 4e-3}

# What each arm changes. Steps make up for what a change costs.
ARMS: Mapping[str, Mapping[str, Any]] = {
  BASELINE: {},
  'milder augmentation': MILDER,
  'batches of 256, learning rate 4e-3': LARGER,
  CHOSEN: LARGER | MILDER,
  'batches of 512, learning rate 5.6e-3, milder augmentation': {
    **MILDER,
    'total_steps': 850,
    'batch_size': 512,
    'optimizer.learning_rate': 5.6e-3,
  },
  'images of 40 pixels': {'total_steps': 1950, 'model.image.size': 40, 'data.size': 48},
  'AdamW, learning rate 1e-3': {
    'total_steps': 3500,
    'optimizer.name': 'adamw',
    'optimizer.learning_rate': 1e-3,
  },
  'moving average of parameters, 0.998': {'average_decay': 0.998},
  'captions, 30% of them tags': {'data.captions': 'caption*0.7+join(tags)*0.3'},
  'twice the blocks': {'total_steps': 2350, 'model.image.stem_blocks': (0, 2, 2)},
  'width 192': {
    'total_steps': 1500,
    'model.image.width': 192,
    'model.text.width': 192,
    'model.text.heads': 6,
  },
  'weight decay 0.1': {'optimizer.weight_decay': 0.1},
  'linear decay': {'optimizer.decay': 'linear'},
  'bfloat16': {'model.dtype': 'bfloat16'},
}


def launch_of(arm: str, folder: pathlib.Path) -> side_by_side.Launch:
  """The run of an arm, below a folder. It is evaluated at its end alone."""
  fields = {'objective': {'info_nce': 1.0}, 'evaluate_every': 1_000_000, 'evaluation.probes': ()}
  fields |= {**FIRST, **ARMS[arm]}
  name = side_by_side.folder_name(arm)
  return side_by_side.Launch(arm, folder / name, 'configs/clip.py:validation', fields)
