"""CLIP with wrong captions of its own as further negatives of each image, stage 2 of CompA.

Ghosh et al., CompA: Addressing the Gap in Compositional Reasoning in Audio-Language Models, 2024,
https://arxiv.org/abs/2310.08753

  python launch.py --config=configs/methods/compa.py             the embedded emoji
  python launch.py --config=configs/methods/compa.py:sounds      two sounds in order, of Debian
  python launch.py --config=configs/methods/compa.py:smoke       two tiny steps
  python launch.py --config=configs/methods/compa.py:validation  to choose settings with

A wrong caption has another skin tone, role, color, number or direction, or two words exchanged;
rules make it, data/text/negatives.py. With three of them the text tower does four times the work of
CLIP's. The authors fine-tune CLAP, an audio-text model, in batches of 48, by Adam at 1e-4 without
weight decay; here the towers train from the start. configs/methods/compa_modular.py is stage 3.

:sounds needs soundfile, pip install 'contrastive-jax[sound]', and sounds: apt-get install
sonic-pi-samples sound-theme-freedesktop oxygen-sounds tuxpaint-stamps-default. A spectrogram of two
sounds is the image, 'drum cowbell, then elec snare' its caption; the wrong ones have the order
swapped, or another sound. `heldout/order_pairs_group_accuracy` is Winoground's score for the order.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = (*clip.SHARED, 'sounds')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('compa', 'default' if variant == 'sounds' else variant, VARIANTS)
  config.variant = variant
  config.data.negatives = 3  # as the authors
  config.objective = ConfigDict({'composition_aware': 1.0})
  if variant == 'sounds':
    make_sounds(config)
  return config


def make_sounds(config: ConfigDict) -> None:
  """Composed sounds in place of the emoji."""
  config.data.update({'name': 'sounds', 'split': 'train', 'negative_captions': 'wrong'})
  config.data.size = config.model.image.size = 48
  config.augmentation = ConfigDict()  # which would turn the spectrogram
  config.model.text.length = 32
  config.evaluation.splits, config.evaluation.pairs = ('heldout',), ('pair',)
  config.evaluation.zero_shot = config.evaluation.probes = ()
  config.evaluation.partners = ''
