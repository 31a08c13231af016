"""NNCLR for an image encoder: the positive is a nearest neighbor in a queue; no texts.

Dwibedi et al., With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual
Representations, 2021, https://arxiv.org/abs/2104.14548

  python launch.py --config=configs/methods/nnclr.py             the embedded emoji
  python launch.py --config=configs/methods/nnclr.py:smoke       two tiny steps
  python launch.py --config=configs/methods/nnclr.py:validation  to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py. `train/similarity`, of a
view and its neighbor, rises as the queue fills with embeddings.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('nnclr', variant, projector=False)
  config.objective = ConfigDict(
    {
      'nnclr': {
        'weight': 1.0,
        # The paper's: 2048, 256, 4096 and 98,304
        'hidden': 256,
        'outputs': 256,
        'predictor_hidden': 64 if variant == 'smoke' else 512,
        'length': 1024,
        'scale': 10.0,  # the inverse of the paper's temperature, 0.1
        'decoupled': False,  # True leaves the positive out of the denominator, as DCL does
      }
    }
  )
  return config
