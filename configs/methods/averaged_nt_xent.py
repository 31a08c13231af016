"""NT-Xent of each view and the average of three others, a baseline of MV-InfoNCE.

Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025,
https://arxiv.org/abs/2507.06979

  python launch.py --config=configs/methods/averaged_nt_xent.py             the embedded emoji
  python launch.py --config=configs/methods/averaged_nt_xent.py:smoke       two tiny steps
  python launch.py --config=configs/methods/averaged_nt_xent.py:validation  to choose settings with

An image encoder, without texts. k-NN evaluates the features before the projector, as in
configs/simclr.py.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('averaged_nt_xent', variant)
  config.views = 4
  config.objective = ConfigDict({'averaged_nt_xent': {'weight': 1.0, 'scale': 10.0}})
  return config
