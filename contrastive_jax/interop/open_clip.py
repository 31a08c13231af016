"""Reads and writes open_clip's models: open_clip_config.json and open_clip_model.safetensors.

Both styles of config are read: open_clip's published `model_cfg`, in which `custom_text` and
`multimodal_cfg` determine the kind of model, and the newer one with an explicit `kind`.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from contrastive_jax.interop import fields as field_table
from contrastive_jax.interop import table, tensors
from contrastive_jax.interop.fields import Field, heads, number, square, words
from contrastive_jax.interop.model import (
  Model,
  shapes_of,
  stack_layers,
  unstack_layers,
  with_defaults,
)
from contrastive_jax.interop.open_clip_names import rows
from contrastive_jax.interop.table import UnsupportedError

CONFIG = 'open_clip_config.json'
WEIGHTS = (
  'open_clip_model.safetensors',
  'open_clip_pytorch_model.safetensors',
  'model.safetensors',
)


def _read_epsilon(norm, _width):
  return 1e-5 if not norm else norm['eps']


def _write_epsilon(epsilon, _width):
  return None if epsilon == 1e-5 else {'eps': epsilon}


def _read_activation(given, _width):
  approximate = (given or {}).get('approximate', 'none')
  return {'none': 'gelu', 'tanh': 'gelu_tanh'}[approximate]


def _write_activation(name, _width):
  return {'gelu': None, 'gelu_tanh': {'approximate': 'tanh'}}[name]


_NEGATED = {False: True, True: False}
_TOWER = (
  Field('layers', 'layers', 12, number),
  Field('mlp_ratio', 'mlp_ratio', 4.0),
  Field('activation', 'act_kwargs', None, _read_activation, _write_activation),
  Field('', 'ls_init_value', None),
  Field('', 'qk_norm', False),
  Field('', 'scaled_cosine_attn', False),
  Field('', 'scale_heads', False),
  Field('', 'scale_attn_inner', False),
  Field('', 'scale_attn', False),
  Field('', 'scale_fc', False),
)
_EPSILON = Field('epsilon', 'norm_kwargs', None, _read_epsilon, _write_epsilon)
_IMAGE = (
  Field('', 'timm_model_name', None),
  Field('width', 'width', 768),
  *_TOWER,
  Field('size', 'image_size', 224, square),
  Field('patch', 'patch_size', 16, square),
  heads('head_width', 64),
  words('pre_norm', 'no_ln_pre', False, _NEGATED),
  Field('patch_dropout', 'patch_dropout', 0.0),
  Field('stem', '', 'patch'),
  Field('stem_bias', '', False),
  Field('stem_blocks', '', None),
  Field('stem_norm', '', 'layer'),
)
_TEXT = (
  Field('', 'hf_model_name', None),
  Field('width', 'width', 512),
  *_TOWER,
  _EPSILON,
  Field('vocabulary', 'vocab_size', 49408),
  Field('length', 'context_length', 77),
  Field('heads', 'heads', 8),
  Field('head_width', '', None),
  words('causal', 'no_causal_mask', False, _NEGATED),
)


class _Kind(NamedTuple):
  """The tables of one of its classes: fields of the towers, and fields with a fixed value."""

  image: tuple[Field, ...]
  text: tuple[Field, ...]
  fixed: dict[str, Any]


_KINDS = {
  'clip': _Kind(
    (
      *_IMAGE,
      _EPSILON,
      words('pooling', 'pool_type', 'tok', {'tok': 'class'}),
      words('class_token', 'attentional_pool', False, {False: False}),
    ),
    (
      *_TEXT,
      words('pooling', 'pool_type', 'argmax', {'argmax': 'end', 'eos': 'end', 'last': 'last'}),
      Field('', 'embed_cls', False),
      Field('shift_mask', '', False),
    ),
    {'image_projection': 'linear'},
  ),
  # open_clip's released CoCa differs from the paper: a shared pooler, an MLP after either attention
  # of the decoder, and a mask shifted by one token.
  'coca': _Kind(
    (
      *_IMAGE,
      Field('epsilon', '', 1e-5),
      Field('', 'norm_kwargs', None),
      Field('', 'pool_type', 'tok'),
      words('class_token', 'attentional_pool', False, {True: True}),
    ),
    (
      *_TEXT,
      words('shift_mask', 'embed_cls', False, {True: True}),
      Field('mask_padding', '', True),
      Field('', 'pad_id', 0),
      Field('', 'proj_bias', False),
      Field('', 'proj_type', 'linear'),
    ),
    {'pooler': 'shared'},
  ),
}
_DECODER = (
  Field('layers', 'layers', 12),
  Field('heads', 'heads', 8),
  Field('', 'ls_init_value', None),
  # open_clip's decoder supports no others, whatever its config says.
  Field('mlps', '', 2),
  Field('mlp_ratio', '', 4),
  Field('activation', '', 'gelu'),
  Field('epsilon', '', 1e-5),
  Field('head_width', '', None),
)
# Entries about preprocessing or training, or without effect on these models: the class token is the
# same whether the final norm comes before or after pooling.
_NEUTRAL = ('block_type', 'output_tokens', 'final_ln_after_pool', 'pos_embed_type', 'pool_type')
_NEUTRAL_PREFIXES = ('timm_', 'hf_', 'tokenizer_', 'attn_pooler_', 'proj_', 'eos_', 'pad_')
_MODEL_ENTRIES = {
  'embed_dim',
  'vision_cfg',
  'text_cfg',
  'multimodal_cfg',
  'custom_text',
  'quick_gelu',
  'init_logit_scale',
  'init_logit_bias',
  'nonscalar_logit_scale',
}
_PROJECTIONS = {
  'none': {'proj_type': 'none', 'proj_bias': False},
  'linear': {'proj_type': 'linear', 'proj_bias': False},
  'affine': {'proj_type': 'linear', 'proj_bias': True},
}


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
  kind = 'coca' if 'multimodal_cfg' in given else 'clip'
  custom = given.get('custom_text', config.get('kind') == 'custom') or kind == 'coca'
  source = {name: value for name, value in config.items() if name not in ('kind', 'open_clip')}
  source['model_cfg'] = {**given, 'custom_text': custom}
  fields, end_id = _read_config(kind, given)
  for name in ('logit_scale', 'logit_bias'):
    if name in weights and weights[name].shape == (1,):
      weights = {**weights, name: weights[name].reshape(())}
  names = rows({'text_projection': 'linear', **with_defaults(fields)}, custom)
  parameters = stack_layers(table.read(names, weights, shapes_of(fields), where), fields)
  return Model(fields, parameters, end_id, source)


def _read_config(kind: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
  """Returns our fields, and the id of the end token if it is not the largest."""
  for name in given.keys() - _MODEL_ENTRIES:
    raise UnsupportedError(f'model_cfg.{name} = {given[name]!r} is not supported')
  sections = {name: dict(given.get(name, {})) for name in ('vision_cfg', 'text_cfg')}
  vision, text = sections.values()
  image_table, text_table, fixed = _KINDS[kind]
  fields = {
    'name': kind,
    'embed': given['embed_dim'],
    'image': _read_section(image_table, vision, 'vision_cfg'),
    'text': _read_section(text_table, text, 'text_cfg'),
    'scale': math.exp(given.get('init_logit_scale', math.log(1 / 0.07))),
    'bias': given.get('init_logit_bias'),
    **fixed,
  }
  if kind == 'coca':
    fields |= _read_decoder(given['multimodal_cfg'], vision, fields['text']['width'])
  else:
    # open_clip's CLIP never masks padding; our causal tower never attends to it.
    fields['text']['mask_padding'] = fields['text']['causal']
    affine = 'affine' if text.get('proj_bias', False) else 'linear'
    fields['text_projection'] = 'none' if text.get('proj_type') == 'none' else affine
  if given.get('quick_gelu', False):
    for tower in {'image', 'text', 'decoder'} & fields.keys():
      fields[tower]['activation'] = 'quick_gelu'
  end_id = text.get('eos_id', 2) if text.get('pool_type') == 'eos' else None
  return fields, end_id


def _read_section(rows, section: dict[str, Any], where: str) -> dict[str, Any]:
  neutral = [name for name in section if name in _NEUTRAL or name.startswith(_NEUTRAL_PREFIXES)]
  return field_table.read(rows, section, where, neutral)


def _read_decoder(given, vision, width: int) -> dict[str, Any]:
  if given.get('width', 512) != width:
    raise UnsupportedError(
      f'multimodal_cfg.width = {given.get("width", 512)} is not supported with text_cfg.width = '
      f'{width}; the same width is'
    )
  return {
    'decoder': field_table.read(_DECODER, given, 'multimodal_cfg', None),
    'queries': vision.get('attn_pooler_queries', 256) - 1,
    'pooler_heads': vision.get('attn_pooler_heads', 8),
  }


def write_open_clip(model: Model, folder: str | pathlib.Path) -> None:
  """Writes a folder that open_clip loads as `local-dir:FOLDER`.

  Set `model.end_id` if the end token is not the vocabulary's largest id: open_clip pools the end of
  a text by it.

  Raises:
    UnsupportedError: a ValueError; names the field that open_clip does not support.
  """
  config = _write_config(model)
  fields = {'text_projection': 'linear', **with_defaults(model.fields)}
  names = rows(fields, config['model_cfg']['custom_text'])
  weights = table.write(names, unstack_layers(model.parameters))
  tensors.write_json(pathlib.Path(folder) / CONFIG, config)
  tensors.write(pathlib.Path(folder) / WEIGHTS[0], weights)


def _write_config(model: Model) -> dict[str, Any]:
  fields = with_defaults(model.fields)
  kind = fields['name']
  if kind not in _KINDS:
    raise UnsupportedError(f'model.name = {kind!r} is not supported by open_clip')
  source = model.source if 'model_cfg' in model.source else {'preprocess_cfg': {}}
  before = source.get('model_cfg', {})
  image_table, text_table, fixed = _KINDS[kind]
  for name, value in fixed.items():
    if fields[name] != value:
      raise UnsupportedError(
        f'model.{name} = {fields[name]!r} is not supported by open_clip; {value!r} is'
      )
  activations = [name for name in fields if name.endswith('/activation')]
  quick = {fields[name] for name in activations} == {'quick_gelu'}
  if quick:
    fields |= dict.fromkeys(activations, 'gelu')
  if kind == 'clip' and fields.pop('text/mask_padding') and not fields['text/causal']:
    raise UnsupportedError(
      'text.mask_padding = True is not supported by open_clip with text.causal = False; False is'
    )

  def section(rows, tower, name):
    return field_table.write(rows, fields, tower, before.get(name, {}), 'open_clip')

  config = {
    'custom_text': kind == 'coca' or fields['bias'] is not None,
    **before,
    'embed_dim': fields['embed'],
    'quick_gelu': quick,
    'init_logit_scale': math.log(fields['scale']),
    'init_logit_bias': fields['bias'],
    'vision_cfg': section(image_table, 'image', 'vision_cfg'),
    'text_cfg': section(text_table, 'text', 'text_cfg'),
  }
  text = config['text_cfg']
  if kind == 'coca':
    config['multimodal_cfg'] = section(_DECODER, 'decoder', 'multimodal_cfg')
    shared = ('width', 'vocab_size', 'context_length')
    config['multimodal_cfg'] |= {name: text[name] for name in shared}
    config['vision_cfg'] |= {
      'attn_pooler_queries': fields['queries'] + 1,
      'attn_pooler_heads': fields['pooler_heads'],
      'output_tokens': True,
    }
    text['output_tokens'] = True
  else:
    text |= _PROJECTIONS[fields['text_projection']]
    if text['pool_type'] == 'argmax' and model.end_id not in (None, text['vocab_size'] - 1):
      text |= {'pool_type': 'eos', 'eos_id': model.end_id}
  return {**source, 'model_cfg': config}
