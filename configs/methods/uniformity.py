"""CLIP's towers by alignment and uniformity alone, without a softmax or a temperature.

Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity
on the Hypersphere, 2020, https://arxiv.org/abs/2005.10242

  python launch.py --config=configs/methods/uniformity.py             the embedded emoji
  python launch.py --config=configs/methods/uniformity.py:smoke       two tiny steps
  python launch.py --config=configs/methods/uniformity.py:validation  to choose settings with

Image and text are the two views; the paper compares two views of an image. A step takes about as
long as CLIP's.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('uniformity', variant)
  # Weights and sharpness t of the authors' code; the paper varies the weights.
  config.objective = ConfigDict({'alignment': 1.0, 'uniformity': {'weight': 1.0, 'sharpness': 2.0}})
  return config
