"""What open_clip's CoCa has beside its towers: the attentional pooler and the decoder."""

from collections.abc import Mapping
from typing import Any

from contrastive_jax.interop import fields as field_table
from contrastive_jax.interop.fields import Field
from contrastive_jax.interop.open_clip import blocks
from contrastive_jax.interop.open_clip.kind import Section, require, write_section
from contrastive_jax.interop.table import Row, UnsupportedError, under

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


def read(model_cfg: Section, width: int) -> dict[str, Any]:
  """Reads our fields of the pooler and the decoder, for a text tower of a width."""
  given, vision = model_cfg['multimodal_cfg'], model_cfg.get('vision_cfg', {})
  if given.get('width', 512) != width:
    raise UnsupportedError(
      f'multimodal_cfg.width = {given.get("width", 512)} is not supported with text_cfg.width = '
      f'{width}; the same width is'
    )
  decoder = field_table.read(_DECODER, given, 'multimodal_cfg', None)
  if not vision.get('attentional_pool'):
    return {'pooler': 'none', 'decoder': decoder}
  return {
    'pooler': 'shared',
    'decoder': decoder,
    'queries': vision.get('attn_pooler_queries', 256) - 1,
    'pooler_heads': vision.get('attn_pooler_heads', 8),
  }


def write(fields: Mapping[str, Any], before: Section, text: Section) -> dict[str, Any]:
  """Returns the multimodal_cfg, given the text_cfg."""
  section = write_section(_DECODER, fields, 'decoder', before)
  return section | {name: text[name] for name in ('width', 'vocab_size', 'context_length')}


def write_pooler(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the entries of the vision_cfg about the pooler."""
  # open_clip's released CoCa differs from the paper: its poolers are one.
  require(fields, 'pooler', 'shared', 'none')
  memory = 'image/width' if fields['pooler'] == 'none' else 'embed'
  if fields[memory] != fields['text/width']:
    raise UnsupportedError(
      f'text.width = {fields["text/width"]} is not supported by open_clip with '
      f'{memory.replace("/", ".")} = {fields[memory]}; the same width is'
    )
  if fields['pooler'] == 'none':
    return {'output_tokens': True}
  return {
    'attn_pooler_queries': fields['queries'] + 1,
    'attn_pooler_heads': fields['pooler_heads'],
    'output_tokens': True,
  }


_CROSS = (
  *blocks.BLOCK,
  *under('context_norm/', 'ln_1_kv.', blocks.NORM),
)
_POOLER = (
  ('queries', 'query', 'q d -> q d'),
  *under('query_norm/', 'ln_q.', blocks.NORM),
  *under('context_norm/', 'ln_k.', blocks.NORM),
  *under('attention/', 'attn.', blocks.ATTENTION),
)
_ROWS = (
  *under('pooler/norm/', 'visual.ln_post.', blocks.NORM),
  *under('decoder/norm/', 'text_decoder.ln_final.', blocks.NORM),
  ('decoder/output/kernel', 'text_decoder.text_projection', 'i o -> i o'),
)


def rows(fields: Mapping[str, Any]) -> list[Row]:
  """Rows of the pooler and the decoder."""
  layers = 'decoder/transformer/blocks/{layer}/'
  matrices = blocks.FUSED if fields['embed'] == fields['image/width'] else blocks.APART
  return [
    *under('', '', _ROWS),
    *under('pooler/', 'visual.attn_pool.', _POOLER),
    *under('pooler/attention/', 'visual.attn_pool.attn.', matrices),
    *under(f'{layers}causal/', 'text_decoder.resblocks.{layer}.', blocks.BLOCK),
    *under(f'{layers}cross/', 'text_decoder.cross_attn.{layer}.', _CROSS),
  ]
