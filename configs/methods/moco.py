"""CLIP with queues of a momentum encoder's embeddings as further negatives, as in MoCo.

He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020,
https://arxiv.org/abs/1911.05722

  python launch.py --config=configs/methods/moco.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/moco.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/moco.py:validation  to choose settings with

The paper compares two views of an image, see configs/methods/moco_images.py; here image and text
are the two sides, with a queue each. The target encoder's forward pass adds a third of the
towers' work.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('moco', variant)
  config.objective = ConfigDict(
    {
      'moco': {
        'weight': 1.0,
        'length': 1024,  # the paper's: 65,536, a twentieth of its data
        'momentum': 0.99,  # the paper's: 0.999, over 1,000,000 steps
      }
    }
  )
  return config
