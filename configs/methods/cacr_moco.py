"""CACR for an image encoder against a momentum encoder's keys, with a queue; no texts.

Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation Learning, 2021,
https://arxiv.org/abs/2105.03746

  python launch.py --config=configs/methods/cacr_moco.py             the embedded emoji
  python launch.py --config=configs/methods/cacr_moco.py:smoke       two tiny steps
  python launch.py --config=configs/methods/cacr_moco.py:validation  to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py. The authors have a
predictor, and no queue, `--config.objective.cacr_moco.length=0`.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('cacr_moco', variant)
  config.objective = ConfigDict(
    {
      'cacr_moco': {
        'weight': 1.0,
        'length': 1024,
        'momentum': 0.99,  # of the target encoder
        'temperature': 1.0,  # theirs
      }
    }
  )
  return config
