"""Small networks for timm, whose names the tests add to the tables of open_clip's towers."""

from contrastive_jax.interop.open_clip import convnext, fastvit, vitamin


def _convnext(width, layers):
  """Our sizes, and the kind and the arguments of timm's constructor; likewise below."""
  dims = [width << stage for stage in range(4)]
  return convnext.Size(width, layers), 'convnext', {'depths': layers, 'dims': dims}


def _vitamin(size, width, layers, heads, stem, positions=True):
  theirs = {'img_size': size, 'embed_dim': width, 'depth': layers, 'num_heads': heads}
  theirs |= {'embed_dims': [*stem, width], 'depths': [2, 4, 1], 'stem_width': stem[0]}
  theirs |= {'class_token': False, 'global_pool': 'avg', 'mlp_ratio': 2.0}
  theirs |= {} if positions else {'pos_embed': 'none'}
  return vitamin.Size(size, width, layers, heads, stem, positions), 'vitamin', theirs


def _fastvit(width, layers, *, attention_stages=1, squeeze=True):
  """One stage of attention as in MobileCLIP-S0 to S2, or two as in S3 and S4."""
  stages, large = len(layers), attention_stages == 2
  theirs = {
    'layers': layers,
    'embed_dims': [width << stage for stage in range(stages)],
    'mlp_ratios': [4 if large else 3] * stages,
    'token_mixers': ['repmixer'] * (stages - attention_stages) + ['attention'] * attention_stages,
    'downsamples': [False] + [True] * (stages - 1),
    'se_downsamples': [squeeze and stage > 1 for stage in range(stages)],
    'lkc_use_act': True,
    'layer_norm': large,
    'stem_use_scale_branch': not large,
  }
  ours = (4, 'layer', False, False) if large else (3, 'batch', squeeze, True)
  return fastvit.Size(width, layers, attention_stages, *ours), 'fastvit', theirs


NETWORKS = {
  'convnext_stored': _convnext(4, (1, 1, 2, 1)),
  'convnext_wide': _convnext(16, (2, 1, 2, 1)),
  'vitamin_stored': _vitamin(64, 16, 2, 2, (8, 16)),
  'vitamin_wide': _vitamin(96, 48, 3, 3, (16, 32), positions=False),
  'fastvit_stored': _fastvit(4, (1, 1, 1, 1), squeeze=False),
  'fastvit_squeezed': _fastvit(8, (2, 1, 2, 2)),
  'fastvit_large': _fastvit(8, (1, 1, 1, 2, 2), attention_stages=2, squeeze=False),
}
_TABLES = {'convnext': convnext.SIZES, 'vitamin': vitamin.SIZES, 'fastvit': fastvit.SIZES}


def add(monkeypatch):
  """Adds the names to the tables."""
  for name, (size, kind, _) in NETWORKS.items():
    monkeypatch.setitem(_TABLES[kind], name, size)
