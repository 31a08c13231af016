"""VICReg: an image encoder whose views agree, and whose features vary and do not correlate.

Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning,
2022, https://arxiv.org/abs/2105.04906

  python launch.py --config=configs/methods/vicreg.py         the embedded emoji, on two cores
  python launch.py --config=configs/methods/vicreg.py:smoke   two tiny steps, a minute in all
  python launch.py --config=configs/methods/vicreg.py:rn50    the paper's recipe, on ImageNet
      also with validation, to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py. There are no texts. The
authors also solarize views with a probability of 0.1.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'rn50')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('vicreg', variant, VARIANTS, projector=False)
  config.objective = ConfigDict({'vicreg': {'weight': 1.0}})
  if variant == 'rn50':
    simclr.make_imagenet(config, variant, epochs=1000, batch_size=2048)
    simclr.make_lars(config, rate=0.2, weight_decay=1e-6)
    config.augmentation.update({'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.2, 'hue': 0.1})
  else:
    # The paper's: 8192 and 8192
    config.objective.vicreg.update({'hidden': 512, 'outputs': 512})
  return config
