"""SwALIP: views predict how other views assign images to texts, beside CLIP-rocket.

Fini et al., Improved baselines for vision-language pre-training, 2023,
https://arxiv.org/abs/2305.08675

  python launch.py --config=configs/methods/swalip.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/swalip.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/swalip.py:validation  to choose settings with
  python launch.py --config=configs/methods/swalip.py:vit_b16 --config.data.name=NAME    the paper's
      recipe, on data with the fields `image` and `caption`; synonyms need the data of WordNet

It has the views and texts of configs/methods/rocket.py, and no further heads.
"""

from ml_collections import ConfigDict

from configs import clip
from configs.methods import rocket

VARIANTS = rocket.VARIANTS


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('swalip', variant, VARIANTS)
  config.objective = ConfigDict({'swalip': {'weight': 1.0}})
  rocket.augment_texts(config)
  if variant == 'vit_b16':
    rocket.make_paper(config)
  else:
    config.objective.swalip.local_hidden = 256  # the paper's: 4096
  return config
