"""MV-DHEL for an image encoder: four views of an image, denominators by view; no texts.

Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025,
https://arxiv.org/abs/2507.06979

  python launch.py --config=configs/methods/mv_dhel.py             the embedded emoji
  python launch.py --config=configs/methods/mv_dhel.py:smoke       two tiny steps
  python launch.py --config=configs/methods/mv_dhel.py:validation  to choose settings with

`--config.views` is the number of views; the paper's claim is about five or more. k-NN evaluates the
features before the projector, as in configs/simclr.py.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('mv_dhel', variant)
  config.views = 4
  # The inverse of the paper's temperature on ImageNet, 0.1; 2 on CIFAR
  config.objective = ConfigDict({'mv_dhel': {'weight': 1.0, 'scale': 10.0}})
  return config
