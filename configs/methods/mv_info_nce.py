"""MV-InfoNCE for an image encoder: four views of an image in one term; no texts.

Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025,
https://arxiv.org/abs/2507.06979

  python launch.py --config=configs/methods/mv_info_nce.py             the embedded emoji
  python launch.py --config=configs/methods/mv_info_nce.py:smoke       two tiny steps
  python launch.py --config=configs/methods/mv_info_nce.py:validation  to choose settings with

`--config.views` is the number of views. Its baselines are pairwise_nt_xent.py, averaged_nt_xent.py
and poly_view.py; mv_info_nce_modalities.py contrasts images and texts. k-NN evaluates the features
before the projector, as in configs/simclr.py.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('mv_info_nce', variant)
  config.views = 4
  config.objective = ConfigDict(
    {
      'mv_info_nce': {
        'weight': 1.0,
        'scale': 10.0,  # the inverse of the paper's temperature on ImageNet, 0.1; 2 on CIFAR
        'cross_view': False,  # as in the authors' code
      }
    }
  )
  return config
