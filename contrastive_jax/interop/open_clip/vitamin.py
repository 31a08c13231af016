"""timm's ViTamins."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from contrastive_jax.interop.fields import Field
from contrastive_jax.interop.open_clip.timm_sizes import (
  PER_CHANNEL,
  POINT,
  SQUARE,
  affine,
  make_kind,
  norm,
)
from contrastive_jax.interop.table import Row, under


class Size(NamedTuple):
  """Our fields that timm's name of a ViTamin stands for."""

  size: int
  width: int
  layers: int
  heads: int
  stem_widths: tuple[int, ...]
  positions: bool = True


_BASES = {
  'small': (Size(224, 384, 14, 6, (64, 128)), (224,)),
  'base': (Size(224, 768, 14, 12, (128, 256)), (224,)),
  'large': (Size(224, 1024, 31, 16, (160, 320)), (224, 256, 336, 384)),
  'large2': (Size(224, 1024, 31, 16, (160, 320)), (224, 256, 336, 384)),
  'xlarge': (Size(256, 1152, 32, 16, (192, 384), False), (256, 336, 384)),
}
SIZES = {
  f'vitamin_{base}_{side}': fields._replace(size=side)
  for base, (fields, sides) in _BASES.items()
  for side in sides
}
_MOBILE = (
  *norm('norm', 'pre_norm'),
  *affine('up', 'conv1_1x1', POINT),
  *affine('middle', 'conv2_kxk', PER_CHANNEL),
  *affine('down', 'conv3_1x1', POINT),
  *affine('shortcut', 'shortcut.expand', POINT),
)
_STEM = (
  *affine('convolutions/0', 'stem.conv1', SQUARE),
  *norm('norm', 'stem.norm1'),
  *affine('convolutions/1', 'stem.conv2', SQUARE),
  *under('blocks/0/{layer}/', 'stages.0.{layer}.', _MOBILE),
  *under('blocks/1/{layer}/', 'stages.1.{layer}.', _MOBILE),
  *norm('last_norm', 'pool.norm'),
  *affine('last', 'pool.proj', SQUARE),
)
_BLOCK = (
  *norm('attention_norm', 'norm1'),
  ('attention/query/kernel attention/key_value/kernel', 'attn.qkv.weight', 'd * h e -> (* h e) d'),
  ('attention/query/bias attention/key_value/bias', 'attn.qkv.bias', '* h e -> (* h e)'),
  ('attention/out/kernel', 'attn.proj.weight', 'h e d -> d (h e)'),
  ('attention/out/bias', 'attn.proj.bias', 'd -> d'),
  *norm('mlp_norm', 'norm2'),
  *norm('mlp/norm', 'mlp.norm'),
  *affine('mlp/gate', 'mlp.w0'),
  *affine('mlp/up', 'mlp.w1'),
  *affine('mlp/down', 'mlp.w2'),
)


def _rows(_fields: Mapping[str, Any]) -> list[Row]:
  return [
    Row('image/positions', 'trunk.pos_embed', 'p d -> 1 p d'),
    *under('', 'trunk.', norm('image/norm', 'fc_norm')),
    *under('image/stem/', 'trunk.patch_embed.backbone.', _STEM),
    *under('image/transformer/blocks/{layer}/', 'trunk.blocks.{layer}.', _BLOCK),
  ]


VITAMIN = make_kind(
  'vitamin',
  SIZES,
  (Field('stem_blocks', '', (2, 4)), Field('mlp_ratio', '', 2), Field('epsilon', '', 1e-6)),
  _rows,
)
