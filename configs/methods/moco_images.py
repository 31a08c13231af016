"""MoCo: an image encoder with a queue of a momentum encoder's keys as negatives; no texts.

He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020,
https://arxiv.org/abs/1911.05722, with the projector of v2, https://arxiv.org/abs/2003.04297

  python launch.py --config=configs/methods/moco_images.py             the embedded emoji
  python launch.py --config=configs/methods/moco_images.py:smoke       two tiny steps
  python launch.py --config=configs/methods/moco_images.py:validation  to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('moco_images', variant)
  config.objective = ConfigDict(
    {
      'moco': {
        'weight': 1.0,
        'length': 1024,  # the paper's: 65,536, a twentieth of its data
        'momentum': 0.99,  # the paper's: 0.999
        'scale': 5.0,  # the inverse of v2's temperature, 0.2
        'in_batch': False,
        'symmetric': False,
      }
    }
  )
  return config
