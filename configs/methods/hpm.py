"""HPM: a masked autoencoder that predicts which patches are hard, and masks them.

Wang et al., Bootstrap Masked Visual Modeling via Hard Patches Mining, 2023,
https://arxiv.org/abs/2312.13714

  python launch.py --config=configs/methods/hpm.py           the embedded emoji, on two cores
  python launch.py --config=configs/methods/hpm.py:smoke     two tiny steps, a minute in all
  python launch.py --config=configs/methods/hpm.py:vit_b16   the paper's recipe, on ImageNet
      also with validation, to choose settings with

Evaluated as configs/mae.py, whose encoder and decoder it has. `train/hpm/ordered` is the share of
pairs of masked patches of which the predictor tells the harder one: 0.5 by chance.
`--config.objective.hpm.hard=0` leaves the masks random, and `python -m experiments.masks.run` draws
those of a run.
"""

from ml_collections import ConfigDict

from configs import clip, mae

VARIANTS = mae.VARIANTS


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('hpm', variant, VARIANTS, mae.get_config)
  config.model.loss_predictor = True
  options = {'weight': 1.0, 'ranking': 1.0, 'hard': 0.5}
  # The paper's: 0.999 and 0.9999
  momenta = (0.999, 0.9999) if variant == 'vit_b16' else (0.98, 0.998)
  options |= dict(zip(('momentum', 'final_momentum'), momenta, strict=True))
  config.objective = ConfigDict({'hpm': options})
  return config
