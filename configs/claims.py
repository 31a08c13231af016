"""The recipe of the claims: every method on the same data, model and schedule.

  python launch.py --config=configs/claims.py                    CLIP, the baseline
  python launch.py --config=configs/claims.py:byolip             a method, by the name of its config
  python launch.py --config=configs/claims.py:byolip-validation  without the held-out splits, to
      choose settings
  python launch.py --config=configs/claims.py:byolip-smoke       two tiny steps

A method keeps what its config changes of configs/clip.py, such as objective, views and decoder; a
config of a task, such as a classification, is its own recipe.
The recipe is frozen: it sets every field that affects a result, whatever becomes of
configs/clip.py. `python -m experiments.claims.run` measures the claims with it.
"""

import importlib
import pathlib
from typing import Any

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED
_FOLDER = pathlib.Path(__file__).parent


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of METHOD, METHOD-validation or METHOD-smoke."""
  method, _, stage = variant.partition('-')
  if variant in clip.SHARED:
    method, stage = 'clip', variant
  stage = stage or 'default'
  if stage not in clip.SHARED:
    raise ValueError(f'configs/claims.py:{variant} ends in {stage!r}; use one of {clip.SHARED}')
  if method != 'clip' and 'task' in (own := method_config(method, stage)):
    own.name, own.variant = 'claims', variant
    return own
  config = recipe(stage)
  if method != 'clip':
    size = 'smoke' if stage == 'smoke' else 'default'
    apply_changes(config, method_config(method, size), clip.recipe(size))
  config.name, config.variant = 'claims', variant
  return config


def path_of(method: str) -> str:
  """Returns the path of the config of a method, in configs/methods/ or configs/."""
  for folder in ('methods/', ''):
    if (_FOLDER / f'{folder}{method}.py').exists() and method != 'claims':
      return f'configs/{folder}{method}.py'
  raise ValueError(f'configs/ and configs/methods/ have no {method}.py; give a method as METHOD')


def method_config(method: str, variant: str) -> ConfigDict:
  """Returns a variant of a method's config."""
  module = path_of(method).removesuffix('.py').replace('/', '.')
  return importlib.import_module(module).get_config(variant)


def apply_changes(config: Any, method: Any, base: Any) -> None:
  """Gives a config what a method's config changes of its base."""
  for name in {*method, *base}:
    if name not in method:
      del config[name]
    elif name != 'objective' and all(isinstance(c.get(name), ConfigDict) for c in (method, base)):
      apply_changes(config[name], method[name], base[name])
    elif name not in base or method[name] != base[name]:
      with config.ignore_type():  # captions may become a tuple
        config[name] = method[name]


def recipe(stage: str) -> ConfigDict:
  """CLIP on the embedded emoji, for 400 steps."""
  # Fields that this function leaves out change nothing: they turn on what came later.
  config = clip.recipe()
  config.data.name = 'emoji'
  styles = 'train[vendor=noto|twemoji'  # the two that the recipe began with
  config.data.split = f'{styles},skin_tone=]+{styles},skin_tone=]+{styles}]'
  config.data.tokenizer = 'emoji'
  config.data.captions = 'caption'
  config.data.size = 40
  config.data.workers = 0
  config.augmentation = ConfigDict(
    {
      'degrees': 10.0,
      'shear': 15.0,
      'translate': 0.08,
      'zoom': 0.3,
      'stretch': 0.3,
      'brightness': 0.4,
      'contrast': 0.4,
      'saturation': 0.5,
      'hue': 0.08,
      'grey': 0.1,
      'erase': 0.2,
    }
  )
  config.model.embed = 64
  config.model.scale = 1 / 0.07
  config.model.dtype = 'float32'
  config.model.image = ConfigDict(
    {
      'size': 32,
      'patch': 8,
      'stem': 'convolution',
      'stem_blocks': (0, 1, 1),
      'width': 64,
      'layers': 0,
      'heads': 4,
      'pre_norm': False,
      'pooling': 'mean',
    }
  )
  config.model.text = ConfigDict(
    {'vocabulary': 4096, 'length': 16, 'width': 64, 'layers': 1, 'heads': 4}
  )
  config.objective = ConfigDict({'info_nce': 1.0})
  config.views = config.texts = config.micro_batches = 1
  config.total_steps = 400
  config.batch_size = 128
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_fraction = 0.05
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.98
  config.optimizer.epsilon = 1e-6
  config.optimizer.weight_decay = 0.5
  config.optimizer.clip_norm = 1.0
  config.optimizer.max_scale = 100.0
  config.evaluate_every = config.checkpoint_every = 400
  config.evaluation.splits = ('heldout_style',)
  config.evaluation.zero_shot = ('group',)
  config.evaluation.templates = ('{}', 'an emoji of {}', 'a picture of {}', '{} symbol')
  config.evaluation.probes = ()
  config.evaluation.probe_split = 'train[skin_tone=,group!=flags]'
  config.evaluation.partners = 'train[skin_tone!=]'
  config.evaluation.pairs = ()
  if stage == 'smoke':
    clip.make_tiny(config)
  elif stage == 'validation':
    noto = 'train[vendor=noto,skin_tone=]'
    config.data.split = f'{noto}+{noto}+train[vendor=noto]'
    config.evaluation.splits = ('train[vendor=twemoji,skin_tone=,group!=flags]',)
  return config
