"""CLIP by decoupled contrastive learning: the positive is left out of the denominator.

Yeh et al., Decoupled Contrastive Learning, 2022, https://arxiv.org/abs/2110.06848

  python launch.py --config=configs/methods/decoupled.py             the embedded emoji
  python launch.py --config=configs/methods/decoupled.py:smoke       two tiny steps
  python launch.py --config=configs/methods/decoupled.py:validation  to choose settings with

Image and text are the two views, so images repel images and texts repel texts too. The paper
compares two views of an image, configs/methods/decoupled_images.py. A step takes about as long as
CLIP's, and the loss, unlike InfoNCE's, falls below 0. The scale is learned, as CLIP's; the paper's
is the option `scale` of 10.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('decoupled', variant)
  config.objective = ConfigDict(
    {
      'decoupled': {
        'weight': 1.0,
        'sigma': None,  # of DCLW, which weighs far positives more; the paper's is 0.5
      }
    }
  )
  return config
