"""CLIP with negatives corrected for false ones, without labels (debiased contrastive learning).

Chuang et al., Debiased Contrastive Learning, 2020, https://arxiv.org/abs/2007.00224

  python launch.py --config=configs/methods/debiased.py             the embedded emoji
  python launch.py --config=configs/methods/debiased.py:smoke       two tiny steps
  python launch.py --config=configs/methods/debiased.py:validation  to choose settings with

Image and text are the two views; the paper compares two views of an image, at the constant scale 2,
the option `scale`. Pairs with a probability over 1 / (1 + N · prior) among N negatives no longer
push these away. configs/methods/hardness_weighted.py also weighs the negatives.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('debiased', variant)
  # The paper's: 0.1, for ten classes. Captions tell far more than ten apart.
  config.objective = ConfigDict({'debiased_info_nce': {'weight': 1.0, 'prior': 0.01}})
  return config
