"""The poly-view contrastive loss of four views of an image; no texts.

Shidani et al., Poly-View Contrastive Learning, 2024, https://arxiv.org/abs/2403.05490

  python launch.py --config=configs/methods/poly_view.py             the embedded emoji
  python launch.py --config=configs/methods/poly_view.py:smoke       two tiny steps
  python launch.py --config=configs/methods/poly_view.py:validation  to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('poly_view', variant)
  config.views = 4
  config.objective = ConfigDict(
    {'poly_view': {'weight': 1.0, 'scale': 10.0, 'mean': 'geometric'}}  # or 'arithmetic'
  )
  return config
