"""CLIP on the k hardest negatives of each anchor.

  python launch.py --config=configs/methods/hard_negative.py             the embedded emoji
  python launch.py --config=configs/methods/hard_negative.py:smoke       two tiny steps, a minute
  python launch.py --config=configs/methods/hard_negative.py:validation  to choose settings with

The denominator of InfoNCE sums over the positive and the k negatives with the highest scores, in
both directions; with k of at least the batch size minus one it is InfoNCE. Wang and Liu,
Understanding the Behaviour of Contrastive Loss, 2021, https://arxiv.org/abs/2012.09740, select by a
quantile instead.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('hard_negative', variant)
  k = 4 if variant == 'smoke' else 64  # of batches of 16 and 256
  config.objective = ConfigDict({'hard_negative': {'weight': 1.0, 'k': k}})
  return config
