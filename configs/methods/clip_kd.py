"""CLIP-KD: the softmax, the features and the contrasts of a teacher, beside CLIP.

Yang et al., CLIP-KD: An Empirical Study of CLIP Model Distillation, 2024,
https://arxiv.org/abs/2307.12732

  python launch.py --config=configs/clip.py                        first, the teacher
  python launch.py --config=configs/methods/clip_kd.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/clip_kd.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/clip_kd.py:validation  to choose settings with

The student has half the width of configs/clip.py, as in configs/methods/distill.py, which tells of
the teacher.
"""

from ml_collections import ConfigDict

from configs import clip
from configs.methods import distill

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  clip.for_method('clip_kd', variant)
  config = distill.get_config(variant)
  config.name = 'clip_kd'
  config.objective.distill.contrastive = 1.0
  # The authors' 2,000 of the mean over 512 dimensions is 3.9 of the sum.
  config.objective.clip_kd = {'weight': 1.0, 'features': 3.9, 'interactive': 1.0}
  return config
