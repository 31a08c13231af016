"""CLIP with supervised contrastive learning: images of one class attract each other.

Khosla et al., Supervised Contrastive Learning, 2020, https://arxiv.org/abs/2004.11362

  python launch.py --config=configs/methods/supervised.py             the embedded emoji
  python launch.py --config=configs/methods/supervised.py:smoke       two tiny steps
  python launch.py --config=configs/methods/supervised.py:validation  to choose settings with

The classes are those of `config.data.labels`; InfoNCE with the captions trains the text tower. The
paper trains images alone, with two views each. A step takes about as long as CLIP's.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('supervised', variant)
  config.data.labels = 'subgroup'
  # The inverse of the paper's temperature, 0.1
  config.objective = ConfigDict({'info_nce': 1.0, 'supervised': {'weight': 1.0, 'scale': 10.0}})
  return config
