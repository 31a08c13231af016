"""BYOLIP: image and text predict each other's projection by a momentum encoder, beside CLIP.

Fini et al., Improved baselines for vision-language pre-training, 2023,
https://arxiv.org/abs/2305.08675

  python launch.py --config=configs/methods/byolip.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/byolip.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/byolip.py:validation  to choose settings with
  python launch.py --config=configs/methods/byolip.py:vit_b16 --config.data.name=NAME    the paper's
      recipe, on data with the fields `image` and `caption`; synonyms need the data of WordNet

With three views of each image, and the target encoder's forward pass over them, the image tower
does four times the work of CLIP's. `train/byolip/distance` starts near 2. The paper also augments
the text, as :vit_b16 does and configs/methods/rocket.py.
"""

from ml_collections import ConfigDict

from configs import clip
from configs.methods import rocket

VARIANTS = rocket.VARIANTS


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('byolip', variant, VARIANTS)
  config.views = 3
  config.objective = ConfigDict({'byolip': {'weight': 1.0}})
  if variant == 'vit_b16':
    rocket.make_paper(config)
  else:
    # The paper's: 2048, 128, 4096 and 0.99, over 114,000 steps
    sizes = {'hidden': 256, 'outputs': 64, 'local_hidden': 256, 'momentum': 0.98}
    config.objective.byolip.update(sizes)
  return config
