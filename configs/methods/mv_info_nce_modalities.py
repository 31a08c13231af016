"""MV-InfoNCE of three modalities: image, name and tags of an emoji in one term per example.

Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025,
https://arxiv.org/abs/2507.06979

  python launch.py --config=configs/methods/mv_info_nce_modalities.py             the embedded emoji
  python launch.py --config=configs/methods/mv_info_nce_modalities.py:smoke       two tiny steps
  python launch.py --config=configs/methods/mv_info_nce_modalities.py:validation  to choose settings

The tags are a second text, which the same text tower encodes. With
`--config.objective` of 'mv_dhel', 'pairwise_nt_xent', 'averaged_nt_xent' or 'poly_view' and the
same `views` it is one of these. Images also repel images, and texts texts. The scale is learned, as
CLIP's; `views` of an image are in configs/methods/mv_info_nce.py.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('mv_info_nce_modalities', variant)
  config.texts = 2
  with config.data.ignore_type():
    config.data.captions = ('caption', 'join(tags)')
  config.model.text.length = 32
  config.objective = ConfigDict(
    {
      'mv_info_nce': {
        'weight': 1.0,
        'views': ('image', 'text', 'text.1'),
      }
    }
  )
  return config
