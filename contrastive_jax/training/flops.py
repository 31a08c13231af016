"""FLOPs of a train step, computed from the sizes of the model.

A multiply-add is two operations. Only matrix products, convolutions and Fourier transforms count.
"""

import re
from typing import Any

import jax
from ml_collections import ConfigDict

from contrastive_jax.data import BatchShape
from contrastive_jax.methods import Objective, Sizes
from contrastive_jax.methods.inputs import fields, views_read
from contrastive_jax.models.definition import MODELS
from contrastive_jax.models.towers import image_class, text_class
from contrastive_jax.training.batch import batch_shapes
from contrastive_jax.training.teacher import StoredTeacher, Teacher


def analytic(
  config: ConfigDict,
  parameters,
  objective: Objective,
  sizes: Sizes,
  shape: BatchShape | None = None,
  teacher: Teacher | StoredTeacher | None = None,
) -> dict[str, float]:
  """Model FLOPs per step, without rematerialization.

  A kernel costs 2 operations per parameter and token; attention costs 4 per query, key and head
  channel, also if causal. The backward pass costs twice the forward pass, except that pixels have
  no gradient. A streamed loss computes 4 products; a dense loss would compute 3.

  Args:
    config: config of a run.
    parameters: a nested dict of arrays or shapes.
    objective: the objective of the run.
    sizes: sizes of its heads and memory.
    shape: shape of the batch; default the mean over those of a run.
    teacher: the teacher, whose forward pass counts with those of targets.

  Returns:
    Operations per step, over all devices, by part: 'image', 'text', 'captioner', 'loss' (with
    heads) and 'targets'; and 'audio', for a model of sounds.
  """
  if shape is None:
    shapes = batch_shapes(config).shapes
    given = config, parameters, objective, sizes
    every = [analytic(*given, shape, teacher) for shape in shapes]
    return {part: sum(flops[part] for flops in every) / len(every) for part in every[0]}
  B = shape.batch_size
  parts, forwards = _towers(config, parameters, shape)
  if config.model.get('shared', 'second_tokens' in MODELS[config.model.name].inputs):
    parts['second_text'] = parts['text']
  parts['image'] *= _views_read(config, objective, '')
  texts = config.texts + config.data.negatives
  parts['text'] = texts * parts['text'] + parts.pop('second_text')
  if 'audio' in parts:
    parts['audio'] *= config.data.voices
  parts['targets'] = len(objective.targets) * _read(config, objective, 'target', forwards)
  if teacher is not None and teacher.definition is not None:
    own = ConfigDict(config.to_dict() | {'model': teacher.fields, 'objective': {}})
    forwards = _towers(own, teacher.definition.shapes, shape)[1]
    parts['targets'] += _read(own, objective, 'teacher', forwards)
  parts['loss'] = objective.flops(sizes._replace(batch=B))
  return parts


def _towers(config: ConfigDict, parameters, shape: BatchShape) -> tuple[dict, dict]:
  """Operations by part of a step, for one view and text, and of its forward pass alone."""
  B = shape.batch_size
  model = config.model
  names = ['image', 'text', 'second_text', 'captioner', 'loss', 'targets']
  names += ['audio'] if 'audio' in model else []
  parts = dict.fromkeys(names, 0.0)
  forwards = dict(parts)
  image = model.get('image')
  seeing = [name for name in ('image', 'audio') if name in model]
  pixels = tuple(f'{own}/{name}' for own in seeing for name in image_class(model[own]).on_pixels)
  for own in seeing:
    if constant := getattr(image_class(model[own]), 'constant_flops', None):
      forwards[own] = parts[own] = B * constant(model[own])
  for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if not name.endswith('kernel'):
      continue
    part, queries, keys = _lengths(config, name, shape.length)
    forward = 2 * leaf.size * (keys if 'key_value' in name else queries)
    if name.endswith('query/kernel'):
      forward += 4 * queries * keys * (leaf.size // leaf.shape[-3])
    first = name.startswith(pixels)
    forwards[part] += B * forward
    parts[part] += B * forward * (2 if first else 3)
  if shape.length:
    # Positions are resized by a product, whose weights have no gradient.
    forward = 2 * B * shape.length * (image.size // image.patch) ** 2 * image.width
    forwards['image'] += forward
    parts['image'] += 2 * forward
  return parts, forwards


def _read(config: ConfigDict, objective: Objective, encoder: str, forwards) -> float:
  """Operations of an encoder without a backward pass, for what methods read."""
  read = fields(objective.reads, encoder)
  texts = config.texts if {'texts', 'texts_features'} & read else 1
  texts += config.data.negatives if 'negatives' in read else 0
  of_image = forwards['image'] * _views_read(config, objective, encoder)
  of_text = forwards['text'] * texts if any('text' in name for name in read) else 0.0
  of_audio = forwards.get('audio', 0.0) * config.data.voices if 'audio' in read else 0.0
  return of_image + of_text + of_audio


def _views_read(config: ConfigDict, objective: Objective, encoder: str) -> int:
  """How many views an encoder's outputs need."""
  return len(views_read(objective.reads, encoder, config.views, 'text' in config.model))


def _lengths(config: ConfigDict, name: str, sequence_length: int = 0) -> tuple[str, int, int]:
  """Part of the model that a kernel is in, and its queries and keys per example.

  Outside of attention, the number of queries is the number of tokens.
  """
  model, captions = config.model, 'decoder' in config.model
  by_model: dict[str, dict[str, Any]] = {}
  if captions:
    by_model = {'image': {'pooling': 'none'}, 'text': {'pooling': 'class'}}
  if sequence_length:
    by_model['image'] = {'sequence_length': sequence_length}
  if model.get('pooler') == 'none':
    by_model['image'] = {}
  finders = {'image': image_class, 'audio': image_class}
  finders |= {'text': text_class, 'second_text': text_class}
  for tower, find in finders.items():
    if name.startswith(f'{tower}/'):
      fields = {**model[tower.removeprefix('second_')], **by_model.get(tower, {})}
      return tower, *find(fields).lengths(fields, name.removeprefix(f'{tower}/'))
  tokens, length = 0, 0
  if captions:
    image = {**model.image, **by_model['image']}
    tokens, length = image_class(image).lengths(image, '')[0], model.text.length
  patches = visible = 0
  if 'pixel_decoder' in model:
    visible = image_class(model.image).lengths(model.image, '')[0]
    patches = (model.image.size // model.image.patch) ** 2
  queries = tokens if model.get('pooler') == 'none' else model.get('queries', 0)
  cascade = model.get('pooler') == 'cascade'
  shared = model.get('pooler') == 'shared'
  logits = length - 1 if 'captioning' in config.objective else 0
  table = {
    'image_projection': ('image', 1, 1),
    'audio_projection': ('audio', 1, 1),
    'projector/': ('image', 1, 1),
    'text_projection': ('text', 1, 1),
    'second_text_projection': ('second_text', 1, 1),
    'pooler/': ('image', queries + shared, tokens),
    'pixel_decoder/embed/': ('image', visible, visible),
    r'pixel_decoder/\w+/output/': ('image', patches - visible, patches - visible),
    'pixel_decoder/': ('image', patches, patches),
    'contrastive_pooler/': ('image', 1, queries if cascade else tokens),
    'decoder/output': ('captioner', logits, logits),
    'decoder/transformer/.*cross/': ('captioner', length - 1, queries),
    'decoder/transformer/': ('captioner', length - 1, length - 1),
  }
  return next(value for pattern, value in table.items() if re.match(pattern, name))
