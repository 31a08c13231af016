"""CLIP with the multi-similarity loss: images of one class attract each other.

Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, 2019,
https://arxiv.org/abs/1904.06627

  python launch.py --config=configs/methods/multi_similarity.py             the embedded emoji
  python launch.py --config=configs/methods/multi_similarity.py:smoke       two tiny steps
  python launch.py --config=configs/methods/multi_similarity.py:validation  to choose settings

The classes are those of `config.data.labels`; InfoNCE with the captions trains the text tower.
The values are the paper's, which trains images alone, as configs/methods/metrix.py does.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('multi_similarity', variant)
  config.data.labels = 'subgroup'
  term = {'weight': 1.0, 'alpha': 2.0, 'beta': 50.0}
  config.objective = ConfigDict({'info_nce': 1.0, 'multi_similarity': term})
  return config
