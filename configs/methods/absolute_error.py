"""Regression of a number per image by the absolute error, L1, end to end; the plain baseline.

  python launch.py --config=configs/methods/absolute_error.py             the embedded emoji
  python launch.py --config=configs/methods/absolute_error.py:smoke       two tiny steps
  python launch.py --config=configs/methods/absolute_error.py:validation  to choose settings with

Data, encoder and evaluation are those of configs/methods/supremix.py, with one view per image. The
ridge regression that is evaluated reads the features that the linear head reads.
"""

from ml_collections import ConfigDict

from configs.methods import supremix

VARIANTS = supremix.VARIANTS


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    known = f'use one of {VARIANTS}'
    raise ValueError(f'configs/methods/absolute_error.py has no variant {variant!r}; {known}')
  config = supremix.get_config(variant)
  config.name, config.views = 'absolute_error', 1
  # About the mean and the standard deviation of the numbers
  options = {'weight': 1.0, 'center': 0.4, 'spread': 0.25}
  config.objective = ConfigDict({'absolute_error': options})
  return config
