"""CLIP whose pairs weigh by their own loss: easy ones less, from a burn-in on.

Sow et al., Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining,
2025. The paper weighs texts that a language model learns from; docs/claims.md measures it on pairs.

  python launch.py --config=configs/methods/reweighted.py       the embedded emoji, on two cores
  python launch.py --config=configs/methods/reweighted.py:smoke       two tiny steps
  python launch.py --config=configs/methods/reweighted.py:validation  to choose settings with

A step takes as long as CLIP's.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('reweighted', variant)
  config.objective = ConfigDict(
    {
      'reweighted_info_nce': {
        'weight': 1.0,
        'strategy': 'linupper',  # or 'quadratic', 'extremes', 'upper'
        'temperature': 1.0,
        'burn_in': 100,  # steps of equal weights: a twentieth, as in the paper's code
      }
    }
  )
  return config
