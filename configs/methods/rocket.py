"""CLIP-rocket: CLIP with a strong recipe, augmented views and texts through further projectors.

Fini et al., Improved baselines for vision-language pre-training, 2023,
https://arxiv.org/abs/2305.08675

  python launch.py --config=configs/methods/rocket.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/rocket.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/rocket.py:validation  to choose settings with
  python launch.py --config=configs/methods/rocket.py:vit_b16 --config.data.name=NAME    the paper's
      recipe, on data with the fields `image` and `caption`; synonyms need the data of WordNet

With three views of each image and three texts the towers do three times the work of CLIP's. The
paper reports that this recipe lifts CLIP as much as BarLIP, BYOLIP, SiamLIP or SwALIP do, and that
these add little to it.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = (*clip.SHARED, 'vit_b16')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('rocket', variant, VARIANTS)
  config.objective = ConfigDict({'rocket': {'weight': 1.0}})
  augment_texts(config)
  if variant == 'vit_b16':
    make_paper(config)
  else:
    config.objective.rocket.local_hidden = 256  # the paper's: 4096
  return config


def augment_texts(config: ConfigDict) -> None:
  """Three views of each image, and three texts, with the paper's augmentation of texts."""
  config.views = config.texts = 3
  edits = {'drop_stop_words': 0.8, 'synonyms': 0.4, 'swap': 0.4, 'delete': 0.2}
  config.data.text_augmentation.update(edits | {'synonyms_from': 'emoji', 'first': 'stop_words'})


def make_paper(config: ConfigDict) -> None:
  """The authors' ViT-B/16 on YFCC15M."""
  augment_texts(config)
  clip.make_yfcc15m(config, epochs=32)
  config.model.embed = 256
  config.data.text_augmentation.synonyms_from = 'wordnet'
