"""iSogCLR between image and text: a moving average and a temperature per example and side.

Qiu et al., Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic
Temperature Individualization, 2023, https://arxiv.org/abs/2305.11965

  python launch.py --config=configs/methods/isogclr.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/isogclr.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/isogclr.py:validation  to choose settings with

The tables take 24 bytes per example of the data. Frequent concepts get high temperatures, rare ones
low temperatures; `train/isogclr/temperature` is the mean. See configs/methods/sogclr.py for one
constant temperature, and configs/methods/isogclr_images.py for two views of an image.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('isogclr', variant)
  config.objective = ConfigDict(
    {
      'isogclr': {
        'weight': 1.0,
        'temperature': 0.05,  # the paper's: 0.01, on CC3M
        'bounds': (0.01, 0.5),  # the authors' library: (0.005, 0.05)
        'rho': 2.0,  # theirs: 6.0; it must be below the log of the number of negatives
      }
    }
  )
  return config
