"""The arms of the experiment on sounds: small towers, 400 steps of 128 examples.

  python launch.py --config=experiments/sounds/config.py:compa

`clip` and `compa` read composed sounds as pictures, `clip_stamps` and `gram` Tux Paint's stamps.
"""

from ml_collections import ConfigDict

from configs.methods import compa, gram
from experiments.sounds.arms import ARMS


def get_config(variant: str) -> ConfigDict:
  """Returns the config of an arm."""
  if variant not in ARMS:
    raise ValueError(f'experiments/sounds/config.py has no variant {variant!r}; use {[*ARMS]}')
  stamps = ARMS[variant][0] == 'stamps'
  config = gram.get_config('tuxpaint') if stamps else compa.get_config('sounds')
  config.name, config.variant = 'sounds', variant
  if variant.startswith('clip'):
    config.objective = ConfigDict({'info_nce': 1.0})
    config.data.update({'negatives': 0, 'negative_captions': '', 'audio': ()})
    config.model.name = 'clip'
    if stamps:
      del config.model.audio
  config.model.embed = 64
  for tower in ('image', 'text', 'audio'):
    if tower in config.model:
      config.model[tower].width = 64
  config.model.image.size = 32
  if not stamps:
    config.data.size = 32
  config.optimizer.update({'name': 'adamw', 'learning_rate': 1e-3})
  config.total_steps = config.evaluate_every = 400
  config.batch_size, config.data.workers = 128, 0
  return config
