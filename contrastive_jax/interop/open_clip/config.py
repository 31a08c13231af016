"""From open_clip's model_cfg to our fields, and back."""

import math
from collections.abc import Mapping
from typing import Any

from contrastive_jax.interop.model import Model, scanned, with_defaults
from contrastive_jax.interop.open_clip import coca, towers
from contrastive_jax.interop.open_clip.kind import Kind, Section, require
from contrastive_jax.interop.table import Row, UnsupportedError, under
from contrastive_jax.models.definition import define

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
_SCALARS = (('log_scale', 'logit_scale', '->'), ('bias', 'logit_bias', '->'))


def check_open_clip(model_cfg: Mapping[str, Any]) -> None:
  """Checks, before any download, whether a model of open_clip can be read.

      interop.check_open_clip(open_clip.get_model_config('ViT-B-16-SigLIP2'))

  Args:
    model_cfg: the content of a file of open_clip's model_configs, or of an open_clip_config.json.

  Raises:
    ValueError: names the entry that is not supported, and its value.
  """
  given = model_cfg.get('model_cfg', model_cfg)
  if not isinstance(given, Mapping) or 'embed_dim' not in given:
    raise ValueError('model_cfg has no embed_dim')
  define(**scanned(read_config(given)[0]))


def is_custom(model_cfg: Section) -> bool:
  """Whether open_clip has the text tower as a submodule, `text.*`."""
  text = towers.kind_of(towers.TEXT, model_cfg.get('text_cfg', {}))
  return bool(model_cfg.get('custom_text') or 'multimodal_cfg' in model_cfg or text.custom_text)


def rows(fields: Mapping[str, Any], model_cfg: Section) -> list[Row]:
  """Returns the table of the tensors of one model.

  Args:
    fields: all fields of the model by path, 'image/width'.
    model_cfg: its config.
  """
  vision, text = model_cfg.get('vision_cfg', {}), model_cfg.get('text_cfg', {})
  image_rows = towers.kind_of(towers.IMAGE, vision).rows(fields, vision)
  text_rows = towers.kind_of(towers.TEXT, text).rows(fields, text)
  return [
    *under('', '', _SCALARS),
    *under('', 'visual.', image_rows),
    *under('', 'text.' if is_custom(model_cfg) else '', text_rows),
    *(coca.rows(fields) if 'multimodal_cfg' in model_cfg else ()),
  ]


def read_config(given: Section) -> tuple[dict[str, Any], int | None, int]:
  """Returns our fields, `end_id` and `sequence_length` of a model, see `interop.Model`.

  Raises:
    UnsupportedError: names the entry that is not supported.
  """
  for name in sorted(given.keys() - _MODEL_ENTRIES):
    raise UnsupportedError(f'model_cfg.{name} = {given[name]!r} is not supported')
  vision, text = given.get('vision_cfg', {}), given.get('text_cfg', {})
  if (arch := text.get('text_arch', 'clip')) != 'clip':
    raise UnsupportedError(f"text_cfg.text_arch = {arch!r} is not supported; 'clip' is")
  image_kind = towers.kind_of(towers.IMAGE, vision)
  text_kind = towers.kind_of(towers.TEXT, text)
  fields = {
    'name': 'coca' if 'multimodal_cfg' in given else 'clip',
    'embed': given['embed_dim'],
    **image_kind.read(vision, given),
    **text_kind.read(text, given),
    'scale': math.exp(given.get('init_logit_scale', math.log(1 / 0.07))),
    'bias': given.get('init_logit_bias'),
  }
  end_id, length = fields.pop('end_id', None), fields.pop('sequence_length', 0)
  if fields['name'] == 'coca':
    fields |= coca.read(given, fields['text']['width'])
  if given.get('quick_gelu', False):
    for tower in _quick_towers(image_kind, text_kind, fields):
      fields[tower]['activation'] = 'quick_gelu'
  return fields, end_id, length


def _quick_towers(image: Kind, text: Kind, fields: Mapping[str, Any]) -> list[str]:
  """Towers whose activation `model_cfg.quick_gelu` selects."""
  applies = {'image': image.quick_gelu, 'text': text.quick_gelu, 'decoder': 'decoder' in fields}
  return [tower for tower, does in applies.items() if does]


def write_config(model: Model) -> dict[str, Any]:
  """Returns the content of open_clip_config.json.

  Raises:
    UnsupportedError: names the field that open_clip does not support.
  """
  fields = with_defaults(model.fields) | {'end_id': model.end_id}
  require(fields, 'name', 'clip', 'coca')
  given = model.source.get('preprocess_cfg', {})
  source = model.source if 'model_cfg' in model.source else {'preprocess_cfg': given}
  before = source.get('model_cfg', {})
  pairs = [
    (image, text)
    for image in towers.kinds_to_write(
      towers.IMAGE, fields['image/tower'], before.get('vision_cfg', {})
    )
    for text in towers.kinds_to_write(towers.TEXT, fields['text/tower'], before.get('text_cfg', {}))
  ]
  errors = []
  for image, text in pairs:
    try:
      return {**source, 'model_cfg': _write_model(model, fields, before, image, text)}
    except UnsupportedError as error:
      errors.append(error)
  raise errors[0]


def _write_model(model: Model, fields, before, image: Kind, text: Kind) -> dict[str, Any]:
  activations = [f'{tower}/activation' for tower in _quick_towers(image, text, model.fields)]
  quick = {fields[name] for name in activations} == {'quick_gelu'}
  if quick:
    fields = fields | dict.fromkeys(activations, 'gelu')
  is_coca = fields['name'] == 'coca'
  if is_coca:
    require(fields, 'image/tower', 'vit')
  pooler = coca.write_pooler(fields) if is_coca else {}
  config = {
    'custom_text': is_coca or fields['bias'] is not None,
    **before,
    'embed_dim': fields['embed'],
    'quick_gelu': quick,
    'init_logit_scale': math.log(fields['scale']),
    'init_logit_bias': fields['bias'],
    'vision_cfg': image.write(fields, before.get('vision_cfg', {})) | pooler,
    'text_cfg': text.write(fields, before.get('text_cfg', {})),
  }
  if is_coca:
    decoder = before.get('multimodal_cfg', {})
    config['multimodal_cfg'] = coca.write(fields, decoder, config['text_cfg'])
  return config
