"""CLIP on a new random tenth of the data per round: repeated random sampling.

Okanovic et al., Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning, 2024,
https://arxiv.org/abs/2305.18424

  python launch.py --config=configs/methods/rs2.py             the embedded emoji
  python launch.py --config=configs/methods/rs2.py:smoke       two tiny steps
  python launch.py --config=configs/methods/rs2.py:validation  to choose settings with

A run sees as many images as CLIP's, and takes as long; the paper shortens it to the rounds that an
accuracy needs. `--config.data.replacement=False` draws until all data are used: plain epochs.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('rs2', variant)
  config.data.subset = 0.1  # the paper's 5%, 10% and 30%
  return config
