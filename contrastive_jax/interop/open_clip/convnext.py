"""timm's ConvNeXts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from contrastive_jax.interop.fields import Field, square
from contrastive_jax.interop.open_clip.timm_sizes import (
  PER_CHANNEL,
  SQUARE,
  affine,
  make_kind,
  norm,
)
from contrastive_jax.interop.table import Row, under


class Size(NamedTuple):
  """Our fields that timm's name of a ConvNeXt stands for."""

  width: int
  layers: tuple[int, ...]
  epsilon: float = 1e-6


SIZES = {
  'convnext_tiny': Size(96, (3, 3, 9, 3)),
  'convnext_small': Size(96, (3, 3, 27, 3)),
  'convnext_base': Size(128, (3, 3, 27, 3)),
  'convnext_large': Size(192, (3, 3, 27, 3)),
  'convnext_xlarge': Size(256, (3, 3, 27, 3)),
  'convnext_xxlarge': Size(384, (3, 4, 30, 3), 1e-5),
}
_BLOCK = (
  *affine('convolution', 'conv_dw', PER_CHANNEL),
  *norm('norm', 'norm'),
  *affine('mlp/up', 'mlp.fc1'),
  *affine('mlp/down', 'mlp.fc2'),
  ('layer_scale/scale', 'gamma', 'd -> d'),
)
_ENDS = (
  *affine('image/stem/embed', 'stem.0', SQUARE),
  *norm('image/stem_norm', 'stem.1'),
  *norm('image/norm', 'head.norm'),
)


def _rows(fields: Mapping[str, Any]) -> list[Row]:
  found = under('', 'trunk.', _ENDS)
  for stage in range(len(fields['image/layers'])):
    theirs = f'trunk.stages.{stage}.'
    found += under(f'image/stages/{stage}/{{layer}}/', f'{theirs}blocks.{{layer}}.', _BLOCK)
    if stage:
      halving = f'image/halvings/{stage - 1}/embed'
      found += under('', theirs, norm(f'image/halving_norms/{stage - 1}', 'downsample.0'))
      found += under('', theirs, affine(halving, 'downsample.1', SQUARE))
  return found


CONVNEXT = make_kind(
  'convnext',
  SIZES,
  (Field('size', 'image_size', 224, square), Field('mlp_ratio', '', 4)),
  _rows,
  free=('layer_scale',),
)
