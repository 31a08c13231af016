"""iSogCLR for an image encoder: two views of an image, and a temperature per example.

Qiu et al., Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic
Temperature Individualization, 2023, https://arxiv.org/abs/2305.11965

  python launch.py --config=configs/methods/isogclr_images.py         the embedded emoji, two cores
  python launch.py --config=configs/methods/isogclr_images.py:smoke   two tiny steps, a minute
      also with validation, to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py. The tables take 12 bytes
per example. With `--config.objective.isogclr.learning_rate=0` it is SogCLR.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('isogclr_images', variant)
  config.objective = ConfigDict(
    {
      'isogclr': {
        'weight': 1.0,
        'views': True,
        'temperature': 0.1,  # the authors': 0.07
        'bounds': (0.05, 1.0),
        'rho': 2.0,  # theirs: 6.0; it must be below the log of the number of negatives
        'learning_rate': 1e-3,
        'clip': 3.0,
      }
    }
  )
  return config
