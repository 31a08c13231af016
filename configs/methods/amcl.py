"""AMCL for an image encoder: SimCLR with three projections and a temperature per pair; no texts.

Wang et al., Adaptive Multi-head Contrastive Learning, 2023, https://arxiv.org/abs/2310.05615

  python launch.py --config=configs/methods/amcl.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/amcl.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/amcl.py:validation  to choose settings with

amcl_moco.py and amcl_barlow.py are its forms on MoCo and Barlow Twins. k-NN evaluates the features
before the projectors, as in configs/simclr.py.

Temperatures fall to a bound, `amcl/positive_at_min` and the like in the log. At the paper's lowest,
1e-5, the loss reaches −1e5 per projection, so the lowest is higher here. The paper trains for 1000
epochs with a batch of 512, by SGD with a learning rate of 0.06 and a weight decay of 5e-4.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('amcl', variant, projector=False)
  config.objective = ConfigDict({'amcl': {'weight': 1.0, 'k': 100, **make_options()}})
  return config


def make_options() -> dict:
  """Options of AMCL on SimCLR and on MoCo."""
  return {
    'projectors': 3,  # the paper's, as are all that are not marked
    'hidden': 256,  # the paper's: 512
    'outputs': 64,  # the paper's: 128
    'temperature_hidden': 128,
    'beta': 1e-4,
    'bounds': (0.1, 2.0),  # the paper's: 1e-5 and 2
  }
