"""CLIP with several right and wrong captions of each image, stage 3 of CompA.

Ghosh et al., CompA: Addressing the Gap in Compositional Reasoning in Audio-Language Models, 2024,
https://arxiv.org/abs/2310.08753

  python launch.py --config=configs/methods/compa_modular.py             the embedded emoji
  python launch.py --config=configs/methods/compa_modular.py:sounds      two sounds in order
  python launch.py --config=configs/methods/compa_modular.py:smoke       two tiny steps
  python launch.py --config=configs/methods/compa_modular.py:validation  to choose settings with

The right captions say more or less: 'woman judge: dark skin tone', 'woman judge', and some of the
tags. The wrong ones are those of configs/methods/compa.py. The text tower does six times the work
of CLIP's. Of `:sounds`, see configs/methods/compa.py, the right captions are 'drum cowbell, then
elec snare', 'drum cowbell' and 'elec snare'. The authors compose sounds and captions of their
parts, and fine-tune the model of stage 2 in batches of 192, by Adam at 1e-4 without weight decay;
here the towers train from the start.
"""

from ml_collections import ConfigDict

from configs import clip
from configs.methods import compa

VARIANTS = (*clip.SHARED, 'sounds')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  default = 'default' if variant == 'sounds' else variant
  config = clip.for_method('compa_modular', default, VARIANTS)
  config.variant = variant
  config.data.captions = 'caption+head(caption)+join(tags)'
  config.texts = 3  # one of each field; the number of the authors varies by sound
  config.data.negatives = 3  # likewise
  config.objective = ConfigDict({'modular': 1.0})
  if variant == 'sounds':
    compa.make_sounds(config)
    config.data.captions = 'caption+parts'
  return config
