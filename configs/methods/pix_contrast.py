"""PixContrast: an image encoder that tells the pixels of two crops apart; no texts.

Xie et al., Propagate Yourself: Exploring Pixel-Level Consistency for Unsupervised Visual
Representation Learning, 2021, https://arxiv.org/abs/2011.10043

  python launch.py --config=configs/methods/pix_contrast.py             the embedded emoji
  python launch.py --config=configs/methods/pix_contrast.py:smoke       two tiny steps
  python launch.py --config=configs/methods/pix_contrast.py:validation  to choose settings with
  python launch.py --config=configs/methods/pix_contrast.py:rn50        on ImageNet

All but the loss is as in configs/methods/pixpro.py.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'rn50')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('pix_contrast', variant, VARIANTS, projector=False)
  # The inverse of the paper's temperature, 0.3
  options = {'weight': 1.0, 'scale': 1 / 0.3, 'pos_ratio': 0.7}
  config.objective = ConfigDict({'pix_contrast': options})
  if variant == 'rn50':
    simclr.make_pixels(config, epochs=100)
  else:
    simclr.crop_views(config)
    config.objective.pix_contrast.update({'hidden': 128, 'outputs': 64})
  return config
