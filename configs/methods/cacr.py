"""CACR for an image encoder: far positives attract more, near negatives repel more; no texts.

Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation Learning, 2021,
https://arxiv.org/abs/2105.03746

  python launch.py --config=configs/methods/cacr.py             the embedded emoji
  python launch.py --config=configs/methods/cacr.py:smoke       two tiny steps
  python launch.py --config=configs/methods/cacr.py:validation  to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py. The loss is a difference
of squared distances, about 0 at the start and −2 where embeddings are orthogonal.
configs/methods/cacr_moco.py is the form with a momentum encoder.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('cacr', variant)
  config.views = 4  # as in the paper
  config.objective = ConfigDict(
    {
      'cacr': {
        'weight': 1.0,
        'tau_pos': 1.0,
        'tau_neg': 2.0,  # the paper's on CIFAR-100 and STL-10; 0.9 on CIFAR-10
        'tau_plus': 0.0,  # of the debiased form; the paper's: 0.1
        'stop_weights': False,
      }
    }
  )
  return config
