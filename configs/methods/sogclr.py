"""SogCLR between image and text: a moving average per example and side in place of large batches.

Yuan et al., Provable Stochastic Optimization for Global Contrastive Learning: Small Batch Does Not
Harm Performance, 2022, https://arxiv.org/abs/2202.12387

  python launch.py --config=configs/methods/sogclr.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/sogclr.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/sogclr.py:validation  to choose settings with

The tables take 24 bytes per example of the data.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('sogclr', variant)
  config.objective = ConfigDict({'sogclr': {'weight': 1.0, 'temperature': 0.05, 'gamma': 0.8}})
  return config
