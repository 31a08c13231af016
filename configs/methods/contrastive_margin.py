"""CLIP with the contrastive loss of metric learning: images of one class attract each other.

Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, 2006,
https://doi.org/10.1109/CVPR.2006.100

  python launch.py --config=configs/methods/contrastive_margin.py             the embedded emoji
  python launch.py --config=configs/methods/contrastive_margin.py:smoke       two tiny steps
  python launch.py --config=configs/methods/contrastive_margin.py:validation  to choose settings

The classes are those of `config.data.labels`; InfoNCE with the captions trains the text tower.
The margin is that of Metrix, configs/methods/metrix.py, which trains images alone.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('contrastive_margin', variant)
  config.data.labels = 'subgroup'
  term = {'weight': 1.0, 'negative_margin': 0.5}
  config.objective = ConfigDict({'info_nce': 1.0, 'contrastive_margin': term})
  return config
