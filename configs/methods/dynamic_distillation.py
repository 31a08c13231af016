"""DCD: distillation on the hard negatives that a teacher selects, beside CLIP.

Rao et al., Dynamic Contrastive Distillation for Image-Text Retrieval, 2022,
https://arxiv.org/abs/2207.01426

  python launch.py --config=configs/clip.py                                     first, the teacher
  python launch.py --config=configs/methods/dynamic_distillation.py             the embedded emoji
  python launch.py --config=configs/methods/dynamic_distillation.py:smoke       two tiny steps
  python launch.py --config=configs/methods/dynamic_distillation.py:validation  to choose settings

The authors start from a trained student of a fusion encoder, and freeze its unimodal towers; here
two towers start from scratch, beside InfoNCE. The student has half the width of configs/clip.py, as
in configs/methods/distill.py, which tells of the teacher.
"""

from ml_collections import ConfigDict

from configs import clip
from configs.methods import distill

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  clip.for_method('dynamic_distillation', variant)
  config = distill.get_config(variant)
  config.name = 'dynamic_distillation'
  # k and α are the authors'; the weight makes both terms about equal at the start.
  options = {'weight': 0.1, 'k': 7, 'alpha': 0.2}
  config.objective = ConfigDict({'info_nce': 1.0, 'dynamic_distillation': options})
  return config
