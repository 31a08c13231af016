"""BarLIP: features of image and text correlate with themselves alone, beside CLIP-rocket.

Fini et al., Improved baselines for vision-language pre-training, 2023,
https://arxiv.org/abs/2305.08675

  python launch.py --config=configs/methods/barlip.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/barlip.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/barlip.py:validation  to choose settings with
  python launch.py --config=configs/methods/barlip.py:vit_b16 --config.data.name=NAME    the paper's
      recipe, on data with the fields `image` and `caption`; synonyms need the data of WordNet

It has the views and texts of configs/methods/rocket.py. `train/barlip/correlation` starts near the
width of the projections, and is 0 where their correlation is the identity.
"""

from ml_collections import ConfigDict

from configs import clip
from configs.methods import rocket

VARIANTS = rocket.VARIANTS


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('barlip', variant, VARIANTS)
  config.objective = ConfigDict({'barlip': {'weight': 1.0}})
  rocket.augment_texts(config)
  if variant == 'vit_b16':
    rocket.make_paper(config)
  else:
    # The paper's: 3000, 8192 and 4096
    config.objective.barlip.update({'hidden': 256, 'outputs': 256, 'local_hidden': 256})
  return config
