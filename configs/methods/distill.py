"""Distillation: a student of half the width learns the similarities of a trained CLIP.

Vasu et al., MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training, 2024,
https://arxiv.org/abs/2311.17049

  python launch.py --config=configs/clip.py                        first, the teacher
  python launch.py --config=configs/methods/distill.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/distill.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/distill.py:validation  to choose settings with; its
      teacher is the run of configs/clip.py:validation

`--config.teacher` is the workdir of any run, or a folder of weights, of any architecture. It sees
the same views at its own size. The teacher of `:smoke` is untrained. `train/distill/divergence`
falls toward 0, where the student's softmax is the teacher's.

The paper stores the embeddings of 10 to 30 views once, dataset reinforcement. A run with such a
table spares the teacher's forward pass:

  python -m contrastive_jax.reinforce --config=configs/methods/distill.py --table=runs/table
  python launch.py --config=configs/methods/distill.py --config.teacher=runs/table
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('distill', variant)
  config.teacher = 'untrained' if variant == 'smoke' else f'runs/clip-{variant}'
  # The paper's: 0 and 1 for its small models, 0.25 and 0.75 for the largest; a scale of 100 for
  # OpenAI's and DataComp's teachers. None is the teacher's own.
  options = {'weight': 1.0, 'contrastive': 0.0, 'logits': 1.0, 'teacher_scale': None}
  config.objective = ConfigDict({'distill': options})
  if variant != 'smoke':
    config.model.embed = config.model.image.width = config.model.text.width = 64
  return config
