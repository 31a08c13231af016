"""AMCL for an image encoder on Barlow Twins: a temperature per pair of features; no texts.

Wang et al., Adaptive Multi-head Contrastive Learning, 2023, https://arxiv.org/abs/2310.05615

  python launch.py --config=configs/methods/amcl_barlow.py             the embedded emoji
  python launch.py --config=configs/methods/amcl_barlow.py:smoke       two tiny steps
  python launch.py --config=configs/methods/amcl_barlow.py:validation  to choose settings with

See configs/methods/amcl.py. The network of temperatures maps features of the whole batch, so it is
of one batch size.
"""

from ml_collections import ConfigDict

from configs import clip, simclr
from configs.methods import amcl

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('amcl_barlow', variant, projector=False)
  options = amcl.make_options() | {
    'hidden': 512,  # the paper's: 2048
    'outputs': 512,  # the paper's: 2048
    'beta': 1e-6,
    'off_diagonal': 5e-3,
  }
  config.objective = ConfigDict({'amcl_barlow': {'weight': 1.0, **options}})
  return config
