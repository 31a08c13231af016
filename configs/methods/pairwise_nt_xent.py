"""NT-Xent of all pairs of four views of an image, a baseline of MV-InfoNCE; no texts.

Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025,
https://arxiv.org/abs/2507.06979

  python launch.py --config=configs/methods/pairwise_nt_xent.py             the embedded emoji
  python launch.py --config=configs/methods/pairwise_nt_xent.py:smoke       two tiny steps
  python launch.py --config=configs/methods/pairwise_nt_xent.py:validation  to choose settings with

The paper calls it PWE. k-NN evaluates the features before the projector, as in configs/simclr.py.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('pairwise_nt_xent', variant)
  config.views = 4
  config.objective = ConfigDict({'pairwise_nt_xent': {'weight': 1.0, 'scale': 10.0}})
  return config
