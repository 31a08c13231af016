"""CLIP with negatives weighted by their hardness, and corrected for false ones (HCL).

Robinson et al., Contrastive Learning with Hard Negative Samples, 2021,
https://arxiv.org/abs/2010.04592

  python launch.py --config=configs/methods/hardness_weighted.py             the embedded emoji
  python launch.py --config=configs/methods/hardness_weighted.py:smoke       two tiny steps
  python launch.py --config=configs/methods/hardness_weighted.py:validation  to choose settings with

Image and text are the two views; the paper compares two views of an image, at the constant scale 2,
the option `scale`. A second pass over the pairs makes the loss twice as much work as CLIP's.
configs/methods/debiased.py is the same without weights, and configs/methods/hard_negative.py has a
number of the hardest negatives instead.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('hardness_weighted', variant)
  # The paper's: a prior of 0.1, for ten classes, and the same beta
  options = {'weight': 1.0, 'prior': 0.01, 'beta': 1.0}
  config.objective = ConfigDict({'debiased_info_nce': options})
  return config
