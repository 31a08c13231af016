"""timm's vision transformers by name, with our fields of their architectures.

Sizes and options are those of timm 1.0; open_clip uses a network at the size of its name.
"""

from functools import partial
from typing import Any, NamedTuple


class Network(NamedTuple):
  """One of timm's networks.

  Attributes:
    attention: how its tensors of attention are stored: 'fused' (one matrix and one bias),
      'fused_query_value' (one matrix and two biases) or 'split' (three matrices).
    scale: name of the layer scales, with `{}` for the branch, 1 or 2.
    pools: values of `timm_pool` that leave its pooling as in `fields`, the usual one first.
    fields: arguments of our `ImageTower`.
    naflex: whether it is a NaFlexVit, which also takes images as patches.
  """

  attention: str
  scale: str
  pools: tuple[str, ...]
  fields: dict[str, Any]
  naflex: bool = False


def _network(
  size, patch, width, layers, heads, *, attention='fused', scale='ls{}.gamma', pools, **options
) -> Network:
  sizes = {'size': size, 'patch': patch, 'width': width, 'layers': layers, 'heads': heads}
  usual = {'pre_norm': False, 'stem_bias': True, 'epsilon': 1e-6}
  return Network(attention, scale, pools, {**sizes, **usual, **options})


_CLIP = {'pre_norm': True, 'stem_bias': False, 'epsilon': 1e-5}
_siglip = partial(_network, pools=('map',), pooling='attention')
_tanh = partial(_siglip, activation='gelu_tanh')
_gap = partial(_network, pools=('avg', ''), pooling='patch_mean', final_norm='pooled')


def _naflex(network, *sizes, **options) -> Network:
  return network(256, 16, *sizes, **options)._replace(naflex=True)


_naflex_siglip = partial(_naflex, _tanh, interpolation='bilinear')
_eva = partial(
  _network,
  attention='fused_query_value',
  scale='gamma_{}',
  pools=('token',),
  attention_bias='query_value',
)
_eva02 = partial(
  _eva,
  attention='split',
  mlp='swiglu',
  mlp_ratio=4 * 2 / 3,
  mlp_inner_norm=True,
  attention_inner_norm=True,
  rope='yx',
  rope_grid=16,
)
_pe = partial(
  _network,
  scale='gamma_{}',
  pools=('map',),
  pooling='attention',
  class_token=True,
  pool_heads=8,
  pool_mlp_ratio=4.0,
  rope='xy',
  rope_offset=1.0,
  **_CLIP,
)
_SO400M = (1152, 27, 16)
_SO150M2 = (832, 21, 13)
_SO150M2_OPTIONS = {'mlp_ratio': 34 / 13, 'attention_bias': 'none'}
_SO150M2_OPTIONS |= {'layer_scale': 1e-5, 'registers': 1}

NETWORKS: dict[str, Network] = {
  'eva02_base_patch16_clip_224': _eva02(224, 16, 768, 12, 12),
  'eva02_enormous_patch14_clip_224': _eva(
    224, 14, 1792, 64, 16, mlp_ratio=15360 / 1792, post_norm=True
  ),
  'eva02_large_patch14_clip_224': _eva02(224, 14, 1024, 24, 16),
  'eva02_large_patch14_clip_336': _eva02(336, 14, 1024, 24, 16),
  'eva_giant_patch14_224': _eva(224, 14, 1408, 40, 16, mlp_ratio=6144 / 1408),
  'naflexvit_base_patch16_gap': _naflex(_gap, 768, 12, 12, layer_scale=1e-5, registers=4),
  'naflexvit_base_patch16_map': _naflex(_siglip, 768, 12, 12, layer_scale=1e-5, registers=1),
  'naflexvit_base_patch16_siglip': _naflex_siglip(768, 12, 12),
  'naflexvit_so150m2_patch16_reg1_gap': _naflex(_gap, *_SO150M2, **_SO150M2_OPTIONS),
  'naflexvit_so150m2_patch16_reg1_map': _naflex(_siglip, *_SO150M2, **_SO150M2_OPTIONS),
  'naflexvit_so400m_patch16_siglip': _naflex_siglip(*_SO400M, mlp_ratio=3.7362),
  'vit_base_mci_224': _network(
    224, 16, 768, 12, 12, pools=('token',), stem='nested', stem_bias=False, class_position=False
  ),
  **{
    f'vit_base_patch16_siglip_{size}': _siglip(size, 16, 768, 12, 12)
    for size in (224, 256, 384, 512)
  },
  'vit_base_patch32_siglip_256': _tanh(256, 32, 768, 12, 12),
  **{f'vit_giantopt_patch16_siglip_{size}': _tanh(size, 16, 1536, 40, 16) for size in (256, 384)},
  'vit_large_patch14_clip_224': _network(224, 14, 1024, 24, 16, pools=('token',), **_CLIP),
  **{f'vit_large_patch16_siglip_{size}': _siglip(size, 16, 1024, 24, 16) for size in (256, 384)},
  'vit_large_patch16_siglip_512': _tanh(512, 16, 1024, 24, 16),
  'vit_medium_patch16_gap_256': _network(
    256, 16, 512, 12, 8, pools=('', 'avg'), pooling='mean', attention_bias='none', layer_scale=1e-6
  ),
  'vit_pe_core_base_patch16_224': _pe(224, 16, 768, 12, 12, rope_grid=14),
  'vit_pe_core_gigantic_patch14_448': _pe(
    448,
    14,
    1536,
    50,
    16,
    mlp_ratio=8960 / 1536,
    rope_grid=32,
    class_token=False,
    rope_offset=0.0,
  ),
  'vit_pe_core_large_patch14_336': _pe(336, 14, 1024, 24, 16, rope_grid=24),
  'vit_pe_core_small_patch16_384': _pe(384, 16, 384, 12, 6, rope_grid=24),
  'vit_pe_core_tiny_patch16_384': _pe(384, 16, 192, 12, 3, rope_grid=24),
  **{
    f'vit_so400m_patch14_siglip_{size}': _siglip(
      size, 14, *_SO400M, mlp_ratio=3.7362, drop_remainder=size == 384
    )
    for size in (224, 378, 384)
  },
  **{
    f'vit_so400m_patch16_siglip_{size}': _tanh(size, 16, *_SO400M, mlp_ratio=3.7362)
    for size in (256, 384, 512)
  },
}
# Why NaFlexVits are not read, by a part of their names.
REFUSED = {
  '_par_gap': 'its position embeddings keep their aspect',
  '_parfac_gap': 'its position embeddings are factorized',
  '_radio_': 'its position embeddings keep their aspect',
}
