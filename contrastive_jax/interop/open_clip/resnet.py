"""open_clip's ModifiedResNet, the ResNet of OpenAI's CLIP."""

from collections.abc import Mapping
from typing import Any

from contrastive_jax.interop.fields import Field, square
from contrastive_jax.interop.open_clip.blocks import BATCH_NORM
from contrastive_jax.interop.open_clip.kind import (
  Kind,
  Section,
  read_section,
  require,
  write_section,
)
from contrastive_jax.interop.table import Row, under
from contrastive_jax.models.stages import STAGES


def _layers(value, _width):
  """Returns the blocks of each stage, where a vision transformer has an integer."""
  if isinstance(value, int) or len(value) != STAGES:
    raise KeyError(value)
  return tuple(value)


_FIELDS = (
  Field('', 'timm_model_name', None),
  Field('width', 'width', 768),
  Field('layers', 'layers', 12, _layers, lambda value, _: list(value)),
  Field('size', 'image_size', 224, square),
  # The pool attends over 32 times as many channels as the stem has.
  Field(
    'heads',
    'head_width',
    64,
    lambda size, width: 32 * width // size,
    lambda heads, width: 32 * width // heads,
  ),
  Field('pooling', '', 'attention'),
)


def _read(section: Section, model_cfg: Section) -> dict[str, Any]:
  image = read_section(_FIELDS, section, 'vision_cfg', ('patch_size',))
  return {'image': {'tower': 'resnet', **image}, 'image_projection': 'affine'}


def _write(fields: Mapping[str, Any], before: Section) -> dict[str, Any]:
  require(fields, 'image_projection', 'affine')
  return write_section(_FIELDS, fields, 'image', before)


def _normalized(ours: str, convolution: str, norm: str, axes: str) -> list[Row]:
  """Rows of a convolution and its batch norm."""
  return [
    Row(f'{ours}convolution/kernel', f'{convolution}.weight', axes),
    *under(f'{ours}norm/', f'{norm}.', BATCH_NORM),
  ]


_SQUARE, _POINT = 'p q c d -> d c p q', 'c d -> d c 1 1'
_BLOCK = (
  *_normalized('reduce/', 'conv1', 'bn1', _POINT),
  *_normalized('middle/', 'conv2', 'bn2', _SQUARE),
  *_normalized('expand/', 'conv3', 'bn3', _POINT),
  *_normalized('shortcut/', 'downsample.0', 'downsample.1', _POINT),
)
_POOL = (
  ('image/pool/positions', 'positional_embedding', 'p d -> p d'),
  ('image/pool/query/kernel', 'q_proj.weight', 'd h e -> (h e) d'),
  ('image/pool/query/bias', 'q_proj.bias', 'h e -> (h e)'),
  ('image/pool/key_value/kernel', 'k_proj.weight v_proj.weight', 'd * h e -> * (h e) d'),
  ('image/pool/key_value/bias', 'k_proj.bias v_proj.bias', '* h e -> * (h e)'),
  ('image_projection/kernel', 'c_proj.weight', 'i o -> o i'),
  ('image_projection/bias', 'c_proj.bias', 'o -> o'),
)


def _rows(_fields: Mapping[str, Any], _section: Section) -> list[Row]:
  found = under('', 'attnpool.', _POOL)
  for i in range(3):
    found += _normalized(f'image/stem/{i}/', f'conv{i + 1}', f'bn{i + 1}', _SQUARE)
  for stage in range(STAGES):
    found += under(f'image/stages/{stage}/{{layer}}/', f'layer{stage + 1}.{{layer}}.', _BLOCK)
  return found


RESNET = Kind(
  tower='resnet',
  matches=lambda section: (
    not section.get('timm_model_name') and isinstance(section.get('layers'), (list, tuple))
  ),
  read=_read,
  write=_write,
  rows=_rows,
)
