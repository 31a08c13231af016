"""Text towers that open_clip builds by Hugging Face's names: RoBERTa, XLM-RoBERTa and NLLB.

Their sizes are those of a config.json of Hugging Face: that of a local folder if `hf_model_name` is
one, or the published one of the name.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from contrastive_jax.interop import fields as field_table
from contrastive_jax.interop import tensors
from contrastive_jax.interop.fields import Field, hidden, number, words
from contrastive_jax.interop.open_clip.blocks import NORM
from contrastive_jax.interop.open_clip.kind import (
  Kind,
  Section,
  read_section,
  require,
  write_section,
)
from contrastive_jax.interop.table import Row, UnsupportedError, under

_NAME = 'hf_model_name'
# Entries of a text_cfg that open_clip does not read for these towers.
_NOT_READ = ('width', 'heads', 'layers', 'mlp_ratio', 'vocab_size')
_ACTIVATIONS = {'gelu': 'gelu', 'gelu_new': 'gelu_tanh', 'relu': 'relu'}
_PROJECTIONS = {'linear': 'linear', 'mlp': 'mlp_mean', None: 'none'}


def _roberta(kind: str, vocabulary: int, width: int, layers: int) -> dict[str, Any]:
  return {
    'model_type': kind,
    'vocab_size': vocabulary,
    'hidden_size': width,
    'num_hidden_layers': layers,
    'num_attention_heads': width // 64,
    'intermediate_size': 4 * width,
    'max_position_embeddings': 514,
    'pad_token_id': 1,
    'type_vocab_size': 1,
    'layer_norm_eps': 1e-5,
    'hidden_act': 'gelu',
  }


def _nllb(layers: int, units: int) -> dict[str, Any]:
  return {
    'model_type': 'm2m_100',
    'vocab_size': 256_206,
    'd_model': 1024,
    'encoder_layers': layers,
    'encoder_attention_heads': 16,
    'encoder_ffn_dim': units,
    'pad_token_id': 1,
    'scale_embedding': True,
    'activation_function': 'relu',
  }


# The parts of the published config.json files that determine an encoder.
CONFIGS: dict[str, dict[str, Any]] = {
  'roberta-base': _roberta('roberta', 50_265, 768, 12),
  'roberta-large': _roberta('roberta', 50_265, 1024, 24),
  'xlm-roberta-base': _roberta('xlm-roberta', 250_002, 768, 12),
  'xlm-roberta-large': _roberta('xlm-roberta', 250_002, 1024, 24),
  'facebook/nllb-200-distilled-600M': _nllb(12, 4096),
  'facebook/nllb-200-distilled-1.3B': _nllb(24, 8192),
}


class _Type(NamedTuple):
  """A model type of Hugging Face.

  Attributes:
    tower: name of our tower.
    config: our fields by entries of config.json.
    poolings: our pooling by `hf_pooler_type`; the first one is written.
    rows: rows of the tower.
  """

  tower: str
  config: tuple[Field, ...]
  poolings: dict[str | None, str]
  rows: tuple[Row, ...]


def _size(ours: str, theirs: str) -> Field:
  return Field(ours, theirs, None, number)


def _attention(theirs: str, query: str, key: str, value: str, out: str) -> list[Row]:
  """Rows of attention, whose projections have the names `query`, `key`, `value` and `out`."""
  rows = (
    ('query/kernel', f'{query}.weight', 'd h e -> (h e) d'),
    ('query/bias', f'{query}.bias', 'h e -> (h e)'),
    ('key_value/kernel', f'{key}.weight {value}.weight', 'd * h e -> * (h e) d'),
    ('key_value/bias', f'{key}.bias {value}.bias', '* h e -> * (h e)'),
    ('out/kernel', f'{out}.weight', 'h e d -> d (h e)'),
    ('out/bias', f'{out}.bias', 'd -> d'),
  )
  return under('attention/', theirs, rows)


_LINEAR = (('kernel', 'weight', 'i o -> o i'), ('bias', 'bias', 'o -> o'))
_ROBERTA_BLOCK = (
  *_attention('attention.', 'self.query', 'self.key', 'self.value', 'output.dense'),
  *under('attention_norm/', 'attention.output.LayerNorm.', NORM),
  *under('mlp/up/', 'intermediate.dense.', _LINEAR),
  *under('mlp/down/', 'output.dense.', _LINEAR),
  *under('mlp_norm/', 'output.LayerNorm.', NORM),
)
_ROBERTA_EMBEDDINGS = (
  ('embed/embedding', 'word_embeddings.weight', 'v d -> v d'),
  ('positions', 'position_embeddings.weight', 'p d -> p d'),
  ('token_type', 'token_type_embeddings.weight', 't d -> t d'),
  *under('embed_norm/', 'LayerNorm.', NORM),
)
_ROBERTA = _Type(
  tower='roberta',
  config=(
    _size('vocabulary', 'vocab_size'),
    _size('width', 'hidden_size'),
    _size('layers', 'num_hidden_layers'),
    _size('heads', 'num_attention_heads'),
    hidden('intermediate_size', 0),
    _size('positions', 'max_position_embeddings'),
    _size('pad_id', 'pad_token_id'),
    Field('epsilon', 'layer_norm_eps', 1e-12),
    words('activation', 'hidden_act', 'gelu', _ACTIVATIONS),
    Field('', 'type_vocab_size', 1),
    Field('', 'position_embedding_type', 'absolute'),
    Field('', 'is_decoder', False),
  ),
  # open_clip's `max_pooler` raises an error: it masks by integers.
  poolings={
    'mean_pooler': 'mean',
    'cls_pooler': 'pooler',
    'cls_last_hidden_state_pooler': 'class',
    None: 'mean',
  },
  rows=(
    *under('', 'embeddings.', _ROBERTA_EMBEDDINGS),
    *under('transformer/blocks/{layer}/', 'encoder.layer.{layer}.', _ROBERTA_BLOCK),
    *under('pooler/', 'pooler.dense.', _LINEAR),
  ),
)
_NLLB_BLOCK = (
  *under('attention_norm/', 'self_attn_layer_norm.', NORM),
  *_attention('self_attn.', 'q_proj', 'k_proj', 'v_proj', 'out_proj'),
  *under('mlp_norm/', 'final_layer_norm.', NORM),
  *under('mlp/up/', 'fc1.', _LINEAR),
  *under('mlp/down/', 'fc2.', _LINEAR),
)
_NLLB = _Type(
  tower='nllb',
  config=(
    _size('vocabulary', 'vocab_size'),
    _size('width', 'd_model'),
    _size('layers', 'encoder_layers'),
    _size('heads', 'encoder_attention_heads'),
    hidden('encoder_ffn_dim', 0),
    _size('pad_id', 'pad_token_id'),
    words('activation', 'activation_function', 'relu', _ACTIVATIONS),
    Field('', 'scale_embedding', True),
  ),
  # An encoder has no pooler of its own, so that `cls_pooler` takes the first token's state.
  poolings={
    'cls_pooler': 'class',
    'cls_last_hidden_state_pooler': 'class',
    'mean_pooler': 'mean',
    None: 'class',
  },
  rows=(
    Row('embed/embedding', 'embed_tokens.weight', 'v d -> v d'),
    *under('transformer/blocks/{layer}/', 'layers.{layer}.', _NLLB_BLOCK),
    *under('norm/', 'layer_norm.', NORM),
  ),
)
_TYPES = {'roberta': _ROBERTA, 'xlm-roberta': _ROBERTA, 'm2m_100': _NLLB}
_PROJECTION = (
  ('kernel', 'proj.weight', 'i o -> o i'),
  ('up/kernel', 'proj.0.weight', 'i o -> o i'),
  ('down/kernel', 'proj.2.weight', 'i o -> o i'),
)


def _find(name: str) -> tuple[_Type, dict[str, Any]]:
  """The type of a model, and our fields of its sizes.

  Raises:
    UnsupportedError: if the name is unknown, or the folder holds a model of another type.
  """
  path = pathlib.Path(name) / 'config.json'
  if path.is_file():
    config = tensors.read_json(path)
  elif not (config := CONFIGS.get(name.removeprefix('FacebookAI/'), {})):
    raise UnsupportedError(
      f'text_cfg.{_NAME} = {name!r} is not supported; use one of {[*CONFIGS]}, or a folder with '
      f'the config.json of a model of a type in {[*_TYPES]}'
    )
  kind = config.get('model_type')
  if kind not in _TYPES:
    raise UnsupportedError(
      f'{path}: model_type = {kind!r} is not supported; use one of {[*_TYPES]}'
    )
  found = _TYPES[kind]
  sizes = field_table.read(found.config, config, str(path), None)
  return found, {'tower': found.tower, **sizes}


def _own_fields(kind: _Type) -> tuple[Field, ...]:
  return (
    Field('length', 'context_length', 77),
    words('pooling', 'hf_pooler_type', 'mean_pooler', kind.poolings),
  )


def _read(section: Section, model_cfg: Section) -> dict[str, Any]:
  kind, sizes = _find(section[_NAME])
  if 'multimodal_cfg' in model_cfg:
    raise UnsupportedError(
      f'text_cfg.{_NAME} = {section[_NAME]!r} is not supported with multimodal_cfg: its states see '
      'the tokens that a captioner predicts'
    )
  projection = section.get('hf_proj_type', 'mlp')
  is_none = projection is None and sizes['width'] != model_cfg['embed_dim']
  if projection not in _PROJECTIONS or is_none:
    raise UnsupportedError(
      f'text_cfg.hf_proj_type = {projection!r} is not supported from width {sizes["width"]} to '
      f"embed_dim = {model_cfg['embed_dim']}; 'linear' and 'mlp' are"
    )
  own = read_section(_own_fields(kind), section, 'text_cfg', _NOT_READ)
  return {'text': {**sizes, **own}, 'text_projection': _PROJECTIONS[projection]}


def _write(fields: Mapping[str, Any], before: Section) -> dict[str, Any]:
  require(fields, 'text_projection', *_PROJECTIONS.values())
  name = _name_of(fields, before)
  own = {path: fields[path] for path in ('text/length', 'text/pooling')}
  section = write_section(_own_fields(_find(name)[0]), own, 'text', before)
  projection = next(k for k, ours in _PROJECTIONS.items() if ours == fields['text_projection'])
  return {'hf_model_pretrained': False, **section, _NAME: name, 'hf_proj_type': projection}


def _name_of(fields: Mapping[str, Any], before: Section) -> str:
  """The name before, or any other of the tower's sizes."""
  for name in [before[_NAME]] if before else CONFIGS:
    differing = _differing(fields, name)
    if not differing:
      return name
  if not before:
    raise UnsupportedError(
      f'text.tower = {fields["text/tower"]!r} of these sizes is not supported by open_clip, which '
      f'builds it by a name of Hugging Face; those of {[*CONFIGS]} are'
    )
  field, there = differing
  raise UnsupportedError(
    f'text.{field} = {fields[f"text/{field}"]!r} is not supported by open_clip with {_NAME} = '
    f'{before[_NAME]!r}; {there!r} is'
  )


def _differing(fields: Mapping[str, Any], name: str) -> tuple[str, Any] | None:
  """The first field that a name sets to another value, and that value."""
  for field, value in _find(name)[1].items():
    ours = fields.get(f'text/{field}')
    if field == 'mlp_ratio':
      if int(fields['text/width'] * ours) != int(fields['text/width'] * value):
        return field, value
    elif ours != value:
      return field, value
  return None


def _rows(_fields: Mapping[str, Any], section: Section) -> list[Row]:
  return [
    *under('text/', 'transformer.', _find(section[_NAME])[0].rows),
    *under('text_projection/', '', _PROJECTION),
  ]


# One kind per tower of ours; the first one reads all.
HUGGING_FACE = tuple(
  Kind(
    tower=tower,
    matches=lambda section: bool(section.get(_NAME)),
    read=_read,
    write=_write,
    rows=_rows,
    custom_text=True,
  )
  for tower in ('roberta', 'nllb')
)
