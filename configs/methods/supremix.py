"""SupReMix for an image encoder: contrastive regression of a number per image; no texts.

Wu et al., Mixup Your Own Pairs, 2023, https://arxiv.org/abs/2309.16633

  python launch.py --config=configs/methods/supremix.py             the embedded emoji
  python launch.py --config=configs/methods/supremix.py:smoke       two tiny steps
  python launch.py --config=configs/methods/supremix.py:validation  to choose settings with

The number is the hue of an emoji's mean color, a share of the circle, which the augmentation
keeps. A ridge regression on the features before the projector gives the mean absolute error on
drawings of an unseen vendor, `heldout_style[chroma>=0.05]/hue_mae`, beside that of the median. The
options `mix_negatives=False`, `window=0` and `weighted=False` make it SupCon. The paper regresses
ages and depths with ResNets, whose data and schedules are not here.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('supremix', variant)
  trained, tested = 'vendor=noto|twemoji', 'heldout_style[chroma>=0.05]'
  if variant == 'validation':
    trained, tested = 'vendor=noto', 'train[vendor=twemoji,skin_tone=,chroma>=0.05]'
  config.data.name, config.data.number = 'measured:emoji', 'hue'
  config.data.split = f'train[{trained},skin_tone=,chroma>=0.05]'
  config.evaluation.probe_split = config.data.split
  config.evaluation.update({'splits': (tested,), 'zero_shot': (), 'numbers': ('hue',)})
  config.augmentation.update({'hue': 0.0, 'grey': 0.0, 'erase': 0.0})
  # The paper's: temperature 0.3, a window of 5, shares of the anchor from Beta(2, 8)
  options = {'weight': 1.0, 'scale': 1 / 0.3, 'weighted': True, 'unit': 0.01}
  options |= {'window': 1 if variant == 'smoke' else 5}
  options |= {'mix_negatives': True, 'beta_own': 2.0, 'beta_other': 8.0}
  config.objective = ConfigDict({'supremix': options})
  return config
