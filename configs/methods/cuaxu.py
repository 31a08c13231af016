"""CLIP with uniformity, alignment and cross-modal uniformity (CUAXU), which narrow the gap.

Fahim et al., It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap, 2024,
https://arxiv.org/abs/2405.18570

  python launch.py --config=configs/methods/cuaxu.py             the embedded emoji
  python launch.py --config=configs/methods/cuaxu.py:smoke       two tiny steps
  python launch.py --config=configs/methods/cuaxu.py:validation  to choose settings with

The weights and the sharpness are those of the authors' code. It fine-tunes CLIP at the constant
temperature 0.01; here the towers train from the start, and the temperature is learned. Without
`cross_uniformity` the loss is CUA.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('cuaxu', variant)
  config.objective = ConfigDict(
    {'info_nce': 1.0, 'uniformity': 1.0, 'alignment': 1.0, 'cross_uniformity': 1.0}
  )
  return config
