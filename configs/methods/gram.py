"""GRAM: image, English name, Chinese name and tags of an emoji, contrasted by their volume.

Cicchetti et al., Gramian Multimodal Representation Learning and Alignment, 2025,
https://arxiv.org/abs/2412.11959

  python launch.py --config=configs/methods/gram.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/gram.py:tuxpaint    picture, text and speech of stamps
  python launch.py --config=configs/methods/gram.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/gram.py:validation  to choose settings with

The paper contrasts texts with video, audio and subtitles, from pretrained encoders. Here one text
tower encodes three texts of each emoji, three times the work of CLIP's; its tokenizer, trained on
English, spells Chinese in bytes. `train/gram/matching` starts near log 2. The texts of an emoji
resemble each other, and are matched before the image; recall is by the cosine of image and name.

:tuxpaint needs soundfile, pip install 'contrastive-jax[sound]', and apt-get install
tuxpaint-stamps-default. A stamp is spoken in up to eight languages, of which each step draws one;
the tower of sounds is one more small ResNet, on log-mel spectrograms of 64 frames and bands.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = (*clip.SHARED, 'tuxpaint')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('gram', 'default' if variant == 'tuxpaint' else variant, VARIANTS)
  config.variant = variant
  # The paper's ε, as is the scale at the start, 1 / 0.07. The authors' matching: on a multimodal
  # encoder in place of an MLP.
  options = {'weight': 1.0, 'label_smoothing': 0.1, 'matching': 0.1, 'hidden': 128}
  if variant == 'tuxpaint':
    modalities = ('text', 'image', 'audio')  # the anchor first
    config.data.update({'name': 'tuxpaint', 'split': 'train[spoken>0]', 'audio': ('voices',)})
    config.model.update({'name': 'audio_clip', 'audio': {**config.model.image, 'size': 64}})
    config.evaluation.splits, config.evaluation.pairs = ('heldout[spoken>0]',), ()
    config.evaluation.zero_shot = config.evaluation.probes = ()
  else:
    modalities = ('text', 'image', 'text.1', 'text.2')
    config.texts = 3
    with config.data.ignore_type():
      config.data.captions = ('caption', 'names.zh', 'join(tags)')
    config.model.text.length = 48  # 16 would truncate half of the Chinese names
  config.objective = ConfigDict({'gram': {**options, 'modalities': modalities}})
  return config
