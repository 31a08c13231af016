"""open_clip's own text transformer."""

from collections.abc import Mapping
from typing import Any

from contrastive_jax.interop.fields import Field, words
from contrastive_jax.interop.open_clip import blocks
from contrastive_jax.interop.open_clip.kind import (
  EPSILON,
  NEGATED,
  TOWER,
  Kind,
  Section,
  read_section,
  require,
  write_section,
)
from contrastive_jax.interop.table import Row, UnsupportedError, under

_SHARED = (
  Field('', 'hf_model_name', None),
  Field('width', 'width', 512),
  *TOWER,
  EPSILON,
  Field('vocabulary', 'vocab_size', 49408),
  Field('length', 'context_length', 77),
  Field('heads', 'heads', 8),
  Field('head_width', '', None),
  words('causal', 'no_causal_mask', False, NEGATED),
)
_CLIP = (
  *_SHARED,
  words('pooling', 'pool_type', 'argmax', {'argmax': 'end', 'eos': 'end', 'last': 'last'}),
  Field('', 'embed_cls', False),
  Field('shift_mask', '', False),
)
# open_clip's released CoCa differs from the paper: its mask is shifted by one token.
_COCA = (
  *_SHARED,
  words('shift_mask', 'embed_cls', False, {True: True}),
  Field('mask_padding', '', True),
  Field('', 'pad_id', 0),
  Field('', 'proj_bias', False),
  Field('', 'proj_type', 'linear'),
)
_PROJECTIONS = {
  'none': {'proj_type': 'none', 'proj_bias': False},
  'linear': {'proj_type': 'linear', 'proj_bias': False},
  'affine': {'proj_type': 'linear', 'proj_bias': True},
}
_NEUTRAL = ('final_ln_after_pool', 'pool_type')


def _read(section: Section, model_cfg: Section) -> dict[str, Any]:
  if 'multimodal_cfg' in model_cfg:
    return {'text': read_section(_COCA, section, 'text_cfg', _NEUTRAL)}
  text = read_section(_CLIP, section, 'text_cfg', _NEUTRAL)
  # open_clip's CLIP never masks padding; our causal tower never attends to it.
  text['mask_padding'] = text['causal']
  affine = 'affine' if section.get('proj_bias', False) else 'linear'
  return {
    'text': text,
    'text_projection': 'none' if section.get('proj_type') == 'none' else affine,
    'end_id': section.get('eos_id', 2) if section.get('pool_type') == 'eos' else None,
  }


def _write(fields: Mapping[str, Any], before: Section) -> dict[str, Any]:
  if fields['name'] == 'coca':
    return write_section(_COCA, fields, 'text', before) | {'output_tokens': True}
  fields = dict(fields)
  if fields.pop('text/mask_padding') and not fields['text/causal']:
    raise UnsupportedError(
      'text.mask_padding = True is not supported by open_clip with text.causal = False; False is'
    )
  require(fields, 'text_projection', *_PROJECTIONS)
  section = write_section(_CLIP, fields, 'text', before)
  section |= _PROJECTIONS[fields['text_projection']]
  end_id = fields['end_id']
  if section['pool_type'] == 'argmax' and end_id not in (None, section['vocab_size'] - 1):
    section |= {'pool_type': 'eos', 'eos_id': end_id}
  return section


_ROWS = (
  ('text/embed/embedding', 'token_embedding.weight', 'v d -> v d'),
  ('text/positions', 'positional_embedding', 'l d -> l d'),
  ('text/class_token', 'cls_emb', '1 d -> d'),
  *under('text/norm/', 'ln_final.', blocks.NORM),
)
_PROJECTION_ROWS = {
  'none': (),
  'linear': (('text_projection/kernel', 'text_projection', 'i o -> i o'),),
  'affine': (
    ('text_projection/kernel', 'text_projection.weight', 'i o -> o i'),
    ('text_projection/bias', 'text_projection.bias', 'o -> o'),
  ),
}


def _rows(fields: Mapping[str, Any], _section: Section) -> list[Row]:
  projection = _PROJECTION_ROWS[fields.get('text_projection', 'linear')]
  return [*under('', '', (*_ROWS, *projection)), *blocks.transformer('text')]


TRANSFORMER = Kind(
  tower='transformer',
  matches=lambda section: not section.get('hf_model_name'),
  read=_read,
  write=_write,
  rows=_rows,
  quick_gelu=True,
)
