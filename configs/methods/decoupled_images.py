"""Decoupled contrastive learning of two views of an image, DCL; no texts.

Yeh et al., Decoupled Contrastive Learning, 2022, https://arxiv.org/abs/2110.06848

  python launch.py --config=configs/methods/decoupled_images.py             the embedded emoji
  python launch.py --config=configs/methods/decoupled_images.py:smoke       two tiny steps
  python launch.py --config=configs/methods/decoupled_images.py:validation  to choose settings with

With `--config.objective.decoupled.sigma=0.5` it is DCLW. In the paper, the gain over SimCLR is
largest at small batches. k-NN evaluates the features before the projector;
configs/methods/decoupled.py is the loss for image and text.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('decoupled_images', variant)
  config.objective = ConfigDict(
    {
      'decoupled': {
        'weight': 1.0,
        'scale': 10.0,  # the inverse of the paper's temperature, 0.1
        'sigma': None,  # of DCLW, which weighs far positives more; the paper's is 0.5
      }
    }
  )
  return config
