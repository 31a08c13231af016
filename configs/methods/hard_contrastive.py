"""The hard contrastive loss of two views of an image, on half of the negatives; no texts.

Wang and Liu, Understanding the Behaviour of Contrastive Loss, 2021,
https://arxiv.org/abs/2012.09740

  python launch.py --config=configs/methods/hard_contrastive.py             the embedded emoji
  python launch.py --config=configs/methods/hard_contrastive.py:smoke       two tiny steps
  python launch.py --config=configs/methods/hard_contrastive.py:validation  to choose settings with

With `hard_fraction` of 1 it is configs/simclr.py. Each step finds a threshold per anchor, in four
passes over the pairs. k-NN evaluates the features before the projector, as in configs/simclr.py;
configs/methods/hard_negative.py is the loss for image and text.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('hard_contrastive', variant)
  config.objective = ConfigDict(
    {
      'hard_contrastive': {
        'weight': 1.0,
        'scale': 5.0,  # the inverse of the temperature, which the paper varies
        # The paper's is unknown to us; with 0.1 all pictures get one embedding.
        'hard_fraction': 0.5,
      }
    }
  )
  return config
