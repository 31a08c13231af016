"""CLIP with wrong captions of its own as further negatives of each image, stage 2 of CompA.

Ghosh et al., CompA: Addressing the Gap in Compositional Reasoning in Audio-Language Models, 2024,
https://arxiv.org/abs/2310.08753

  python launch.py --config=configs/methods/compa.py             the embedded emoji
  python launch.py --config=configs/methods/compa.py:smoke       two tiny steps
  python launch.py --config=configs/methods/compa.py:validation  to choose settings with

A wrong caption has another skin tone, role, color, number or direction, or two words exchanged;
rules make it, data/text/negatives.py. With three of them the text tower does four times the work of
CLIP's. The authors fine-tune CLAP, an audio-text model, in batches of 48, by Adam at 1e-4 without
weight decay; here the towers train from the start. configs/methods/compa_modular.py is stage 3.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('compa', variant)
  config.data.negatives = 3  # as the authors
  config.objective = ConfigDict({'composition_aware': 1.0})
  return config
