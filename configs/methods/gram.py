"""GRAM: image, English name, Chinese name and tags of an emoji, contrasted by their volume.

Cicchetti et al., Gramian Multimodal Representation Learning and Alignment, 2025,
https://arxiv.org/abs/2412.11959

  python launch.py --config=configs/methods/gram.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/gram.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/gram.py:validation  to choose settings with

The paper contrasts texts with video, audio and subtitles, from pretrained encoders. Here one text
tower encodes three texts of each emoji, three times the work of CLIP's; its tokenizer, trained on
English, spells Chinese in bytes. `train/gram/matching` starts near log 2. The texts of an emoji
resemble each other, and are matched before the image; recall is by the cosine of image and name.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('gram', variant)
  config.texts = 3
  with config.data.ignore_type():
    config.data.captions = ('caption', 'names.zh', 'join(tags)')
  config.model.text.length = 48  # 16 would truncate half of the Chinese names
  config.objective = ConfigDict(
    {
      'gram': {
        'weight': 1.0,
        'modalities': ('text', 'image', 'text.1', 'text.2'),  # the anchor first
        'label_smoothing': 0.1,  # the paper's, as is the scale at the start, 1 / 0.07
        'matching': 0.1,  # the authors': on a multimodal encoder in place of an MLP
        'hidden': 128,
      }
    }
  )
  return config
