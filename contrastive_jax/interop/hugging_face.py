"""Reads and writes Hugging Face's CLIPModel and SiglipModel: config.json and model.safetensors.

Texts of a CLIPModel may be padded with 0 or, as by its tokenizers, with the end token. SiglipModel
attends to padding, so pad as its tokenizer does.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from contrastive_jax.interop import fields as field_table
from contrastive_jax.interop import table, tensors
from contrastive_jax.interop.fields import Field, hidden, square, words
from contrastive_jax.interop.model import (
  Model,
  shapes_of,
  stack_layers,
  unstack_layers,
  with_defaults,
)
from contrastive_jax.interop.table import Row, UnsupportedError, under

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'

_BLOCK = (
  ('attention_norm/scale', 'layer_norm1.weight', 'd -> d'),
  ('attention_norm/bias', 'layer_norm1.bias', 'd -> d'),
  ('attention/query/kernel', 'self_attn.q_proj.weight', 'd h e -> (h e) d'),
  ('attention/query/bias', 'self_attn.q_proj.bias', 'h e -> (h e)'),
  (
    'attention/key_value/kernel',
    'self_attn.k_proj.weight self_attn.v_proj.weight',
    'd * h e -> * (h e) d',
  ),
  ('attention/key_value/bias', 'self_attn.k_proj.bias self_attn.v_proj.bias', '* h e -> * (h e)'),
  ('attention/out/kernel', 'self_attn.out_proj.weight', 'h e d -> d (h e)'),
  ('attention/out/bias', 'self_attn.out_proj.bias', 'd -> d'),
  ('mlp_norm/scale', 'layer_norm2.weight', 'd -> d'),
  ('mlp_norm/bias', 'layer_norm2.bias', 'd -> d'),
  *(
    _MLP := (
      ('mlp/up/kernel', 'mlp.fc1.weight', 'i o -> o i'),
      ('mlp/up/bias', 'mlp.fc1.bias', 'o -> o'),
      ('mlp/down/kernel', 'mlp.fc2.weight', 'i o -> o i'),
      ('mlp/down/bias', 'mlp.fc2.bias', 'o -> o'),
    )
  ),
)
_POOL = (
  ('query', 'probe', '1 d -> 1 1 d'),
  (
    'attention/query/kernel attention/key_value/kernel',
    'attention.in_proj_weight',
    'd * h e -> (* h e) d',
  ),
  ('attention/query/bias attention/key_value/bias', 'attention.in_proj_bias', '* h e -> (* h e)'),
  ('attention/out/kernel', 'attention.out_proj.weight', 'h e d -> d (h e)'),
  ('attention/out/bias', 'attention.out_proj.bias', 'd -> d'),
  ('norm/scale', 'layernorm.weight', 'd -> d'),
  ('norm/bias', 'layernorm.bias', 'd -> d'),
  *_MLP,
)
_IMAGE = (
  ('stem/embed/kernel', 'embeddings.patch_embedding.weight', 'p q c d -> d c p q'),
  ('stem/embed/bias', 'embeddings.patch_embedding.bias', 'd -> d'),
  ('class_token', 'embeddings.class_embedding', '1 d -> d'),
  ('positions', 'embeddings.position_embedding.weight', 'p d -> p d'),
  ('pre_norm/scale', 'pre_layrnorm.weight', 'd -> d'),  # their spelling
  ('pre_norm/bias', 'pre_layrnorm.bias', 'd -> d'),
  ('norm/scale', 'post_layernorm.weight', 'd -> d'),
  ('norm/bias', 'post_layernorm.bias', 'd -> d'),
)
_TEXT = (
  ('embed/embedding', 'embeddings.token_embedding.weight', 'v d -> v d'),
  ('positions', 'embeddings.position_embedding.weight', 'l d -> l d'),
  ('norm/scale', 'final_layer_norm.weight', 'd -> d'),
  ('norm/bias', 'final_layer_norm.bias', 'd -> d'),
)


def _rows(*others: tuple[str, str, str]) -> list[Row]:
  return [
    *under('image/', 'vision_model.', _IMAGE),
    *under('image/pool/', 'vision_model.head.', _POOL),
    *under('image/transformer/blocks/{layer}/', 'vision_model.encoder.layers.{layer}.', _BLOCK),
    *under('text/', 'text_model.', _TEXT),
    *under('text/transformer/blocks/{layer}/', 'text_model.encoder.layers.{layer}.', _BLOCK),
    *under('', '', others),
  ]


def _tower(width: int, mlp: int, heads: int, activation: str, epsilon: float) -> tuple[Field, ...]:
  names = {
    'gelu': 'gelu',
    'quick_gelu': 'quick_gelu',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'gelu_new': 'gelu_tanh',
  }
  return (
    Field('width', 'hidden_size', width),
    hidden('intermediate_size', mlp),
    Field('layers', 'num_hidden_layers', 12),
    Field('heads', 'num_attention_heads', heads),
    words('activation', 'hidden_act', activation, names),
    Field('epsilon', 'layer_norm_eps', epsilon),
  )


def _fixed(**values) -> tuple[Field, ...]:
  """Fields with a single supported value."""
  return tuple(Field(name, '', value) for name, value in values.items())


class _Kind(NamedTuple):
  """The tables of one of their models; `fixed` holds the fields outside the towers."""

  architecture: str
  image: tuple[Field, ...]
  text: tuple[Field, ...]
  fixed: dict[str, str]
  rows: list[Row]


_KINDS = {
  'clip': _Kind(
    'CLIPModel',
    (
      *_tower(768, 3072, 12, 'quick_gelu', 1e-5),
      Field('size', 'image_size', 224, square),
      Field('patch', 'patch_size', 32, square),
      Field('', 'num_channels', 3),
      *_fixed(class_token=False, stem='patch', stem_bias=False, stem_blocks=None),
      *_fixed(stem_norm='layer', stem_angles=None, pooling='class', pre_norm=True),
    ),
    (
      *_tower(512, 2048, 8, 'quick_gelu', 1e-5),
      Field('vocabulary', 'vocab_size', 49408),
      Field('length', 'max_position_embeddings', 77),
      *_fixed(shift_mask=False, head_width=None, causal=True, pooling='end'),
    ),
    {'image_projection': 'linear', 'text_projection': 'linear'},
    _rows(
      ('image_projection/kernel', 'visual_projection.weight', 'i o -> o i'),
      ('text_projection/kernel', 'text_projection.weight', 'i o -> o i'),
      ('log_scale', 'logit_scale', '->'),
    ),
  ),
  'siglip': _Kind(
    'SiglipModel',
    (
      *_tower(768, 3072, 12, 'gelu_pytorch_tanh', 1e-6),
      Field('size', 'image_size', 224, square),
      Field('patch', 'patch_size', 16, square),
      Field('', 'num_channels', 3),
      Field('', 'vision_use_head', True),
      *_fixed(class_token=False, stem='patch', stem_bias=True, stem_blocks=None),
      *_fixed(stem_norm='layer', stem_angles=None, pooling='attention', pre_norm=False),
    ),
    (
      *_tower(768, 3072, 12, 'gelu_pytorch_tanh', 1e-6),
      Field('vocabulary', 'vocab_size', 32000),
      Field('length', 'max_position_embeddings', 64),
      *_fixed(shift_mask=False, head_width=None, causal=False, pooling='last'),
    ),
    {'image_projection': 'none', 'text_projection': 'affine'},
    _rows(
      ('text_projection/kernel', 'text_model.head.weight', 'i o -> o i'),
      ('text_projection/bias', 'text_model.head.bias', 'o -> o'),
      ('log_scale', 'logit_scale', '-> 1'),
      ('bias', 'logit_bias', '-> 1'),
    ),
  ),
}
# Entries of older files that hold position ids.
_NOT_WEIGHTS = ('text_model.embeddings.position_ids', 'vision_model.embeddings.position_ids')


def read_hugging_face(folder: str | pathlib.Path, *, image_size: int | None = None) -> Model:
  """Reads a folder written by `CLIPModel.save_pretrained` or `SiglipModel.save_pretrained`.

  Args:
    folder: holds config.json and model.safetensors.
    image_size: side of the images in pixels; default the config's. For another size the position
      embeddings are interpolated.

  Raises:
    ValueError: if a file is missing, incomplete, or a pickle; if the type of the model or an entry
      of the config is not supported; if tensors are missing, unexpected, or of another shape.
  """
  path = tensors.find(folder, (WEIGHTS,))
  config = tensors.read_json(pathlib.Path(folder) / CONFIG)
  kind = config.get('model_type')
  if kind not in _KINDS:
    raise UnsupportedError(
      f'model_type = {kind!r} in {folder}/{CONFIG} is not supported; use one of {[*_KINDS]}'
    )
  fields, end_id = _read_config(kind, config)
  weights = {k: v for k, v in tensors.read(path).items() if k not in _NOT_WEIGHTS}
  flat = table.read(_KINDS[kind].rows, weights, shapes_of(fields), str(path))
  model = Model(fields, stack_layers(flat, fields), end_id, config)
  return model if image_size is None else model.resize(image_size)


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
  """Returns one tower's entries; in older files a second dict overrides the first."""
  return {**(config.get(name) or {}), **(config.get(f'{name}_dict') or {})}


def _read_config(kind: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
  """Returns our fields, and the id of the end token if it is not the largest."""
  towers = _KINDS[kind]
  vision, text = _section(config, 'vision_config'), _section(config, 'text_config')
  fields = {
    'name': 'clip',
    'image': field_table.read(towers.image, vision, 'vision_config', None),
    'text': field_table.read(towers.text, text, 'text_config', None),
    **towers.fixed,
  }
  fields['text']['mask_padding'] = fields['text']['causal']
  # Their patch embedding leaves out pixels that do not fill a patch.
  if fields['image']['size'] % fields['image']['patch']:
    fields['image']['drop_remainder'] = True
  if kind == 'siglip':
    fields['embed'] = text.get('projection_size') or fields['text']['width']
    return fields | {'scale': 10.0, 'bias': -10.0}, None
  fields['embed'] = config.get('projection_dim', 512)
  fields['scale'] = math.exp(config.get('logit_scale_init_value', math.log(1 / 0.07)))
  end_id = text.get('eos_token_id', 2)
  largest = fields['text']['vocabulary'] - 1
  # Early configs wrongly have 2, for which transformers uses the largest id.
  return fields, None if end_id in (2, largest) else end_id


def write_hugging_face(model: Model, folder: str | pathlib.Path) -> None:
  """Writes a folder for `CLIPModel.from_pretrained` or `SiglipModel.from_pretrained`.

  A model with a bias is written as a SiglipModel, others as a CLIPModel.

  Raises:
    UnsupportedError: a ValueError; names the field that the format does not support.
  """
  kind = 'clip' if with_defaults(model.fields)['bias'] is None else 'siglip'
  config = _write_config(kind, model)
  weights = table.write(_KINDS[kind].rows, unstack_layers(model.parameters))
  tensors.write_json(pathlib.Path(folder) / CONFIG, config)
  tensors.write(pathlib.Path(folder) / WEIGHTS, weights)


def _write_config(kind: str, model: Model) -> dict[str, Any]:
  towers, fields = _KINDS[kind], with_defaults(model.fields)
  form = towers.architecture
  names = {'name': 'clip', 'image/tower': 'vit', 'text/tower': 'transformer'}
  for name, value in {**names, **towers.fixed}.items():
    if fields[name] != value:
      field = name.replace('/', '.')
      raise UnsupportedError(
        f'model.{field} = {fields[name]!r} is not supported by {form}; {value!r} is'
      )
  if fields.pop('text/mask_padding') and not fields['text/causal']:
    raise UnsupportedError(f'text.mask_padding = True is not supported by {form}; False is')
  fields.pop('image/drop_remainder', None)
  source = model.source if model.source.get('model_type') == kind else {}
  kept = {k: v for k, v in source.items() if not k.endswith('_config_dict')}
  sections = {
    f'{theirs}_config': field_table.write(
      rows, fields, ours, _section(source, f'{theirs}_config'), form
    )
    for ours, theirs, rows in (('image', 'vision', towers.image), ('text', 'text', towers.text))
  }
  config = {'architectures': [form], **kept, 'model_type': kind, **sections}
  if kind == 'siglip':
    sections['text_config']['projection_size'] = fields['embed']
    return config
  end_id = fields['text/vocabulary'] - 1 if model.end_id is None else model.end_id
  if end_id == 2:
    raise UnsupportedError(
      'end_id = 2 is not supported by CLIPModel, which then takes the largest id for the end'
    )
  sections['text_config']['eos_token_id'] = end_id
  for section in sections.values():
    section['projection_dim'] = fields['embed']
  scale = math.log(fields['scale'])
  return config | {'projection_dim': fields['embed'], 'logit_scale_init_value': scale}
