"""Checks of a config, before anything compiles."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from contrastive_jax.data.augmentation import COLORS, check_strengths
from contrastive_jax.data.text.augmentation import FIRST, check_text_augmentation
from contrastive_jax.data.text.negatives import check_rules
from contrastive_jax.models.towers import check_patches
from contrastive_jax.sharding.mesh import batch_shards
from contrastive_jax.training.batch import batch_shapes
from contrastive_jax.training.rules import NATURAL, NOT_NEGATIVE, Rule, rule_of

_CHOICES = {
  'augment_on': ('device', 'host'),
  'data.shuffle': ('global', 'shards'),
  'data.text_augmentation.first': FIRST,
  'bad_steps.action': ('stop', 'skip'),
  'model.dtype': ('float32', 'bfloat16'),
  'matmul_precision': ('highest', 'high', 'default'),
}

# Fields of config.data that name the source of a model input.
_SETTINGS = {
  'tokens': 'captions',
  'second_tokens': 'second_captions',
  'numbers': 'numbers',
  'nodes': 'nodes',
  'audio': 'audio',
}

# Fields that may be a schedule too.
_WEIGHT = re.compile(r'objective\.\w+(\.weight)?')

# Hints for values that other libraries accept.
_HINTS = {
  'keep_checkpoints': '; a large number keeps all',
  'model.dtype': '; float16 would need loss scaling',
}


def leaves(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields (field, value) of all leaves of a nested config."""
  for name, value in config.items():
    if isinstance(value, Mapping):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def check_config(config: ConfigDict, mesh: Mesh) -> None:
  """Checks the fields of a config, and their consistency with each other and the mesh.

  Raises:
    ValueError: names the field, its value, and what would work.
  """
  _check_fields(config.to_dict())
  check_strengths(config.augmentation.to_dict())
  _check_captions(config)
  _check_classes(config.data)
  check_rules(config.data.negative_rules)
  _check_view_augmentation(config)
  check_text_augmentation(config.data.text_augmentation.to_dict(), config.texts)
  _check_batch(config, mesh)
  if 'image' in config.model:
    _check_images(config)
  _check_patches(config)
  _check_patch_dropout(config)
  _check_init_towers(config)
  _check_towers(config.model)


def check_model(config: ConfigDict) -> None:
  """Checks the fields read by a trained model and its evaluation; raises like `check_config`."""
  fields = config.to_dict()
  _check_fields({name: fields[name] for name in ('model', 'evaluation') if name in fields})
  _check_towers(config.model)
  if config.evaluation.get('sequence_length'):
    check_patches(config.model)


def _check_fields(config: Mapping[str, Any]) -> None:
  for field, value in leaves(config):
    accepted: str | Rule | None = None
    if field in _CHOICES and value not in _CHOICES[field]:
      accepted = ' or '.join(map(repr, _CHOICES[field]))
    elif _WEIGHT.fullmatch(field) and isinstance(value, (list, tuple)):
      accepted = (
        None if _is_schedule(value) else 'a number, or ((step, weight), …) in order of steps'
      )
    elif (rule := rule_of(field, value)) and not rule.accepts(value):
      accepted = rule
    if accepted:
      raise ValueError(f'config.{field} = {value!r}; use {accepted}{_HINTS.get(field, "")}')


def _is_schedule(value: Sequence[Any]) -> bool:
  """Whether a weight is a sequence of (step, weight) pairs, with increasing steps."""
  if not value or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value):
    return False
  steps, weights = zip(*value, strict=True)
  if not (all(map(NATURAL.accepts, steps)) and all(map(NOT_NEGATIVE.accepts, weights))):
    return False
  return all(before < after for before, after in itertools.pairwise(steps))


def _check_view_augmentation(config: ConfigDict) -> None:
  for number, strengths in config.view_augmentation.items():
    if not (number.isdecimal() and 1 <= int(number) < config.views):
      raise ValueError(
        f'config.view_augmentation has strengths from view {number!r} on, and config.views = '
        f"{config.views}; use numbers from '1', below that of the views"
      )
    check_strengths(strengths.to_dict(), f'view_augmentation.{number}')


def check_inputs(config: ConfigDict, inputs: Sequence[str]) -> None:
  """Checks that the config names a source for each model input.

  Args:
    config: config of a run.
    inputs: names of the arrays that the model reads from a batch.

  Raises:
    ValueError: names the field, its value, and what would work.
  """
  for name, setting in _SETTINGS.items():
    if name in inputs and not config.data[setting]:
      raise ValueError(
        f'config.data.{setting} = {config.data[setting]!r}, and config.model.name = '
        f'{config.model.name!r} reads {name!r}; name the field of the data'
      )
  for setting, name in (('views', 'image'), ('texts', 'tokens')):
    if config[setting] > 1 and name not in inputs:
      raise ValueError(
        f'config.{setting} = {config[setting]}, and config.model.name = {config.model.name!r} '
        f'reads no {name!r}; use 1'
      )
  if config.data.negatives and 'tokens' not in inputs:
    raise ValueError(
      f'config.data.negatives = {config.data.negatives}, and config.model.name = '
      f"{config.model.name!r} reads no 'tokens'; use 0"
    )


def _check_captions(config: ConfigDict) -> None:
  """Checks that captions name the fields of all texts, or those of each."""
  captions = config.data.captions
  if not isinstance(captions, str) and len(captions) not in (1, config.texts):
    raise ValueError(
      f'config.data.captions = {captions!r} has fields of {len(captions)} texts, and '
      f"config.texts = {config.texts}; give those of each, or one line for all, such as 'caption'"
    )


def _check_classes(fields: ConfigDict) -> None:
  if fields.classes and not fields.labels:
    raise ValueError(
      f"config.data.classes = {fields.classes} numbers the labels, and config.data.labels = ''; "
      'name the field with the class of an example, or use 0 classes'
    )


def _check_batch(config: ConfigDict, mesh: Mesh) -> None:
  shards = batch_shards(mesh)
  for shape in batch_shapes(config).shapes:
    field, works = f'config.batch_size = {config.batch_size}', f'use a multiple of {shards}'
    if shape.batch_size != config.batch_size:
      field += f' gives batches of {shape.batch_size} for sequences of {shape.length}, which'
      works = f'set config.data.batch_multiple = {shards * config.micro_batches}'
    if not shape.batch_size or shape.batch_size % shards:
      raise ValueError(f"{field} is not divisible by the mesh's {shards} data shards; {works}")
    if shape.batch_size % (shards * config.micro_batches):
      raise ValueError(
        f'config.micro_batches = {config.micro_batches} does not divide the per-shard batch of '
        f'{shape.batch_size // shards} (batch_size {shape.batch_size} over {shards} shards); use a '
        'divisor'
      )
    for name, options in config.objective.items():
      groups = options.get('groups', 1) if isinstance(options, ConfigDict) else 1
      if shape.batch_size % groups:
        raise ValueError(
          f'config.objective.{name}.groups = {groups} does not divide the batch of '
          f'{shape.batch_size}; use a divisor'
        )


def _check_patches(config: ConfigDict) -> None:
  """Checks that a run on images as patches (NaFlex) can work."""
  if not config.data.sequence_lengths:
    if config.data.patch_sizes:
      raise ValueError(
        f'config.data.patch_sizes = {config.data.patch_sizes} needs config.data.sequence_lengths, '
        'such as (128, 256)'
      )
    return
  check_patches(config.model)
  sections = ('augmentation', 'view_augmentation')
  strengths = leaves({name: config[name].to_dict() for name in sections})
  if moving := [given for given in strengths if given[0].rpartition('.')[2] not in COLORS]:
    raise ValueError(
      f'config.{moving[0][0]} = {moving[0][1]} would move pixels between patches; with '
      f'config.data.sequence_lengths use {COLORS}, and config.data.crop'
    )
  if config.augment_on == 'host':
    raise ValueError(
      "config.augment_on = 'host' takes square images; with config.data.sequence_lengths use "
      "'device'"
    )


def _check_patch_dropout(config: ConfigDict) -> None:
  dropped = config.model.get('image', {}).get('patch_dropout', 0)
  if config.unmasked_fraction and not dropped:
    raise ValueError(
      f'config.unmasked_fraction = {config.unmasked_fraction} ends the patch dropout, and '
      f'config.model.image.patch_dropout = {dropped} drops none; use 0, or a dropout such as 0.5'
    )


def _check_init_towers(config: ConfigDict) -> None:
  for tower in config.init_towers:
    if tower not in config.model or tower not in ('image', 'text'):
      raise ValueError(
        f"config.init_towers = {config.init_towers} has {tower!r}; use some of 'image' and 'text', "
        'which the model must have, or () for the whole model'
      )


def _check_towers(model: ConfigDict) -> None:
  for name, tower in model.items():
    if not isinstance(tower, ConfigDict):
      continue
    if tower.get('scan') and tower.get('layers') == 0:
      raise ValueError(
        f'config.model.{name}.layers = 0 with config.model.{name}.scan = True; use 1 or more '
        'layers, or scan = False'
      )
    width = tower.get('width') or model.text.width  # A decoder has the text tower's width.
    if width * (ratio := tower.get('mlp_ratio', 4)) < 1:
      raise ValueError(
        f'config.model.{name}.mlp_ratio = {ratio} at width {width} gives MLPs without hidden '
        f'units; use {1 / width} or more'
      )


def _check_images(config: ConfigDict) -> None:
  if config.augment_on == 'host' and config.views > 1:
    raise ValueError(
      f"config.augment_on = 'host' with config.views = {config.views}; use 'device', or one view"
    )
  for name in ('mean', 'std'):
    if len(value := config.data.get(name, ())) not in (0, 3):
      raise ValueError(
        f'config.data.{name} = {value}; use a number per channel, such as (0.5, 0.5, 0.5), or () '
        "for CLIP's"
      )
  crop = config.data.crop
  if crop and (len(crop) != 2 or crop[0] > crop[1]):
    raise ValueError(
      f'config.data.crop = {crop}; use the min and max fraction of the area, such as (0.9, 1.0), '
      'or () for the full image'
    )
  if config.data.sequence_lengths or config.augmentation:
    return
  if config.data.size != config.model.image.size:
    raise ValueError(
      f'config.data.size = {config.data.size} differs from config.model.image.size = '
      f'{config.model.image.size}, but without config.augmentation images are not resized; make '
      'them equal'
    )
