"""timm's FastViTs of MobileCLIP."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from contrastive_jax.interop.fields import Field, square
from contrastive_jax.interop.open_clip.timm_sizes import (
  PER_CHANNEL,
  POINT,
  SQUARE,
  Rows,
  affine,
  batch_norm,
  make_kind,
)
from contrastive_jax.interop.table import Row, under


class Size(NamedTuple):
  """Our fields that timm's name of a FastViT stands for."""

  width: int
  layers: tuple[int, ...]
  attention_stages: int = 1
  mlp_ratio: float = 3
  norm: str = 'batch'
  squeeze: bool = True
  stem_point: bool = True


_LARGE = (2, 4, 'layer', False, False)
SIZES = {
  'fastvit_mci0': Size(64, (2, 6, 10, 2)),
  'fastvit_mci1': Size(64, (4, 12, 20, 4)),
  'fastvit_mci2': Size(80, (4, 12, 24, 4)),
  'fastvit_mci3': Size(96, (2, 12, 24, 4, 2), *_LARGE),
  'fastvit_mci4': Size(128, (2, 12, 24, 4, 4), *_LARGE),
}


def _normalized(ours: str, theirs: str, axes: str) -> Rows:
  """Rows of a convolution and its batch norm."""
  kernel = (f'{ours}/convolution/kernel', f'{theirs}.conv.weight', axes)
  return (kernel, *batch_norm(f'{ours}/norm', f'{theirs}.bn'))


def _squeeze(ours: str, theirs: str) -> Rows:
  return (
    *affine(f'{ours}/reduce', f'{theirs}.fc1', POINT),
    *affine(f'{ours}/expand', f'{theirs}.fc2', POINT),
  )


def _branches(axes: str, point: str) -> Rows:
  """Rows of MobileOne's block, given the axes of its convolutions."""
  return (
    *_normalized('large', 'conv_kxk.0', axes),
    *_normalized('point', 'conv_scale', point),
    *batch_norm('identity', 'identity'),
    *_squeeze('squeeze', 'se'),
  )


_MIX = _branches(POINT, POINT)
_APART = _branches(PER_CHANNEL, PER_CHANNEL)
_HALVING = (
  *_normalized('large', 'proj.0.large_conv', PER_CHANNEL),
  *_normalized('small', 'proj.0.small_conv', PER_CHANNEL),
  *_squeeze('squeeze', 'proj.0.se'),
  *under('mix/', 'proj.1.', _MIX),
)
_MLP = (
  *_normalized('mlp/convolution', 'mlp.conv', PER_CHANNEL),
  *affine('mlp/mlp/up', 'mlp.fc1', POINT),
  *affine('mlp/mlp/down', 'mlp.fc2', POINT),
)
_CONVOLUTION = (
  *batch_norm('norm', 'token_mixer.norm.identity'),
  *under('mixer/', 'token_mixer.mixer.', _APART),
  ('mixer_scale/scale', 'token_mixer.layer_scale.gamma', 'd -> d 1 1'),
  *_MLP,
  ('mlp_scale/scale', 'layer_scale.gamma', 'd -> d 1 1'),
)
_ATTENTION = (
  *batch_norm('norm', 'norm'),
  ('mixer/query/kernel mixer/key_value/kernel', 'token_mixer.qkv.weight', 'd * h e -> (* h e) d'),
  ('mixer/out/kernel', 'token_mixer.proj.weight', 'h e d -> d (h e)'),
  ('mixer/out/bias', 'token_mixer.proj.bias', 'd -> d'),
  ('mixer_scale/scale', 'layer_scale_1.gamma', 'd -> d 1 1'),
  *_MLP,
  ('mlp_scale/scale', 'layer_scale_2.gamma', 'd -> d 1 1'),
)


def _rows(fields: Mapping[str, Any]) -> list[Row]:
  found = [
    *under('image/stem/0/', 'trunk.stem.0.', _branches(SQUARE, 'p q i o -> o i p q')),
    *under('image/stem/1/', 'trunk.stem.1.', _APART),
    *under('image/stem/2/', 'trunk.stem.2.', _MIX),
    *under('image/final/', 'trunk.final_conv.', _APART),
  ]
  stages = len(fields['image/layers'])
  for stage in range(stages):
    theirs, ours = f'trunk.stages.{stage}.', f'image/stages/{stage}/'
    block = _ATTENTION if stage >= stages - fields['image/attention_stages'] else _CONVOLUTION
    found += under(f'{ours}{{layer}}/', f'{theirs}blocks.{{layer}}.', block)
    found += under(ours, theirs, affine('0/position', 'pos_emb.pos_enc', PER_CHANNEL))
    if stage:
      found += under(f'image/halvings/{stage - 1}/', f'{theirs}downsample.', _HALVING)
  return found


FASTVIT = make_kind('fastvit', SIZES, (Field('size', 'image_size', 224, square),), _rows)
