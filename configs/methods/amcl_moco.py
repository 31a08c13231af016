"""AMCL for an image encoder on MoCo: queues of a momentum encoder's keys, one per projection.

Wang et al., Adaptive Multi-head Contrastive Learning, 2023, https://arxiv.org/abs/2310.05615

  python launch.py --config=configs/methods/amcl_moco.py             the embedded emoji
  python launch.py --config=configs/methods/amcl_moco.py:smoke       two tiny steps
  python launch.py --config=configs/methods/amcl_moco.py:validation  to choose settings with

See configs/methods/amcl.py, and configs/methods/moco_images.py for its baseline.
"""

from ml_collections import ConfigDict

from configs import clip, simclr
from configs.methods import amcl

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('amcl_moco', variant, projector=False)
  # The paper's length: 4096
  queue = {'length': 1024, 'momentum': 0.99}
  config.objective = ConfigDict({'amcl_moco': {'weight': 1.0, 'k': 100, **queue}})
  config.objective.amcl_moco.update(amcl.make_options())
  return config
