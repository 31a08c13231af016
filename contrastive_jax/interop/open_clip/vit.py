"""open_clip's own vision transformer."""

from collections.abc import Mapping
from typing import Any

from contrastive_jax.interop.fields import Field, heads, square, words
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
  Field('', 'timm_model_name', None),
  Field('width', 'width', 768),
  *TOWER,
  Field('size', 'image_size', 224, square),
  Field('patch', 'patch_size', 16, square),
  heads('head_width', 64),
  words('pre_norm', 'no_ln_pre', False, NEGATED),
  Field('patch_dropout', 'patch_dropout', 0.0),
  Field('stem', '', 'patch'),
  Field('stem_bias', '', False),
  Field('stem_blocks', '', None),
  Field('stem_norm', '', 'layer'),
  Field('stem_angles', '', None),
)
_CLIP = (
  *_SHARED,
  EPSILON,
  words('pooling', 'pool_type', 'tok', {'tok': 'class', 'avg': 'patch_mean'}),
  words('class_token', 'attentional_pool', False, {False: False}),
)
# The attentional pooler follows, which belongs to the model.
_COCA = (
  *_SHARED,
  Field('epsilon', '', 1e-5),
  Field('', 'norm_kwargs', None),
  Field('', 'pool_type', 'tok'),
  words('class_token', 'attentional_pool', False, {True: True}),
)
# The class token is the same whether the final norm comes before or after pooling.
_NEUTRAL = ('final_ln_after_pool', 'pool_type')


def _read(section: Section, model_cfg: Section) -> dict[str, Any]:
  if 'multimodal_cfg' in model_cfg and section.get('attentional_pool'):
    return {'image': read_section(_COCA, section, 'vision_cfg', _NEUTRAL)}
  image = read_section(_CLIP, section, 'vision_cfg', _NEUTRAL)
  if image['pooling'] == 'patch_mean':
    pooled = section.get('final_ln_after_pool', False)
    image |= {'class_token': True, 'final_norm': 'pooled' if pooled else 'tokens'}
  projection = {} if 'multimodal_cfg' in model_cfg else {'image_projection': 'linear'}
  return {'image': image, **projection}


def _write(fields: Mapping[str, Any], before: Section) -> dict[str, Any]:
  if fields['name'] == 'clip':
    require(fields, 'image_projection', 'linear')
  elif fields['pooler'] != 'none':
    return write_section(_COCA, fields, 'image', before)
  after = {}
  if fields['image/pooling'] == 'patch_mean':
    if not fields['image/class_token']:
      raise UnsupportedError(
        "image.class_token = False is not supported by open_clip with image.pooling = 'patch_mean'"
        '; True is'
      )
    after = {'final_ln_after_pool': fields['image/final_norm'] == 'pooled'}
    fields = {**fields, 'image/class_token': False, 'image/final_norm': 'tokens'}
  return write_section(_CLIP, fields, 'image', before) | after


_ROWS = (
  ('image/stem/embed/kernel', 'conv1.weight', 'p q c d -> d c p q'),
  ('image/class_token', 'class_embedding', '1 d -> d'),
  ('image/positions', 'positional_embedding', 'p d -> p d'),
  *under('image/pre_norm/', 'ln_pre.', blocks.NORM),
  *under('image/norm/', 'ln_post.', blocks.NORM),
  ('image_projection/kernel', 'proj', 'i o -> i o'),
)


def _rows(_fields: Mapping[str, Any], _section: Section) -> list[Row]:
  return [*under('', '', _ROWS), *blocks.transformer('image')]


VIT = Kind(
  tower='vit',
  matches=lambda section: (
    not section.get('timm_model_name') and isinstance(section.get('layers', 12), int)
  ),
  read=_read,
  write=_write,
  rows=_rows,
  quick_gelu=True,
)
