"""Folders of open_clip's models."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from contrastive_jax.interop import table, tensors
from contrastive_jax.interop.model import (
  Model,
  shapes_of,
  stack_layers,
  unstack_layers,
  with_defaults,
)
from contrastive_jax.interop.open_clip.config import is_custom, read_config, rows, write_config

CONFIG = 'open_clip_config.json'
WEIGHTS = (
  'open_clip_model.safetensors',
  'open_clip_pytorch_model.safetensors',
  'model.safetensors',
)
# A buffer in files of old versions of transformers, which open_clip ignores too.
_POSITION_IDS = 'text.transformer.embeddings.position_ids'
# Entry of our own beside `model_cfg`, which open_clip does not read.
_SEQUENCE_LENGTH = 'sequence_length'
# PyTorch's batch norm counts its training steps, which nothing reads.
_COUNTER, _STATISTIC = 'num_batches_tracked', 'running_mean'


def read_open_clip(folder: str | pathlib.Path, *, image_size: int | None = None) -> Model:
  """Reads a model in open_clip's format.

  Args:
    folder: holds open_clip_config.json and the weights, open_clip_model.safetensors.
    image_size: side of the images in pixels; default the config's. For another size the position
      embeddings are interpolated.

  Raises:
    ValueError: if a file is missing, incomplete, or a pickle; if an entry of the config is not
      supported; if tensors are missing, unexpected, or of another shape.
  """
  path = tensors.find(folder, WEIGHTS)
  config = tensors.read_json(pathlib.Path(folder) / CONFIG)
  model = from_tensors(tensors.read(path), config, str(path))
  return model if image_size is None else model.resize(image_size)


def from_tensors(weights: table.Tensors, config: Mapping[str, Any], where: str) -> Model:
  """Builds a model from a state dict and a config; `where` names the weights in errors."""
  given = config.get('model_cfg')
  if not isinstance(given, Mapping) or 'embed_dim' not in given:
    raise ValueError(f'{CONFIG} of {where} has no model_cfg with an embed_dim')
  given = {**given, 'custom_text': given.get('custom_text', config.get('kind') == 'custom')}
  given['custom_text'] = is_custom(given)
  source = {name: value for name, value in config.items() if name not in ('kind', 'open_clip')}
  source['model_cfg'] = given
  fields, end_id, length = read_config(given)
  length = source.pop(_SEQUENCE_LENGTH, length)
  counters = {name: value for name, value in weights.items() if name.endswith(_COUNTER)}
  ignored = {*counters, _POSITION_IDS}
  weights = {name: value for name, value in weights.items() if name not in ignored}
  for name in ('logit_scale', 'logit_bias'):
    if name in weights and weights[name].shape == (1,):
      weights = {**weights, name: weights[name].reshape(())}
  names = rows(with_defaults(fields), given)
  parameters = stack_layers(table.read(names, weights, shapes_of(fields), where), fields)
  return Model(fields, parameters, end_id, source, counters, length)


def write_open_clip(model: Model, folder: str | pathlib.Path) -> None:
  """Writes a folder that open_clip loads as `local-dir:FOLDER`.

  Set `model.end_id` if the end token is not the vocabulary's largest id: open_clip pools the end of
  a text by it.

  Raises:
    UnsupportedError: a ValueError; names the field that open_clip does not support.
  """
  config = write_config(model)
  weights = to_tensors(model.parameters, model.fields, config['model_cfg'])
  weights |= {name: value for name, value in model.counters.items() if name in weights}
  vision = config['model_cfg']['vision_cfg']
  if model.sequence_length and 'image_seq_len' in vision:
    vision['image_seq_len'] = model.sequence_length
  if model.sequence_length != read_config(config['model_cfg'])[2]:
    config[_SEQUENCE_LENGTH] = model.sequence_length
  tensors.write_json(pathlib.Path(folder) / CONFIG, config)
  tensors.write(pathlib.Path(folder) / WEIGHTS[0], weights)


def to_tensors(parameters: Any, fields: Mapping[str, Any], model_cfg: Mapping[str, Any]):
  """Returns open_clip's tensors by name, for parameters, or gradients, of a model."""
  weights = table.write(rows(with_defaults(fields), model_cfg), unstack_layers(parameters))
  counters = [name.replace(_STATISTIC, _COUNTER) for name in weights if name.endswith(_STATISTIC)]
  return weights | dict.fromkeys(counters, np.int64(0))
