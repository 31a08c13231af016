"""BYOL: an image encoder whose views predict those of its moving average; no texts.

Grill et al., Bootstrap your own latent: A new approach to self-supervised Learning, 2020,
https://arxiv.org/abs/2006.07733

  python launch.py --config=configs/methods/byol.py         the embedded emoji, on two cores
  python launch.py --config=configs/methods/byol.py:smoke   two tiny steps, a minute in all
  python launch.py --config=configs/methods/byol.py:rn50    the paper's recipe, on ImageNet
      also with validation, to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py. `train/byol/spread` falls
to 0 in a collapse. More views than two predict each other in pairs.

Both views share one augmentation. The paper blurs one of them always and the other with a
probability of 0.1, and solarizes the other with 0.2; `rn50` blurs with 0.5.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'rn50')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('byol', variant, VARIANTS, projector=False)
  config.objective = ConfigDict({'byol': {'weight': 1.0}})
  if variant == 'rn50':
    config.objective.byol.weight = 2.0  # the paper adds both directions
    simclr.make_lars(config, rate=0.2, weight_decay=1.5e-6)
    config.augmentation.update({'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.2, 'hue': 0.1})
  else:
    # The paper's: 4096, 256, 4096 and 0.996, over 312,000 steps
    sizes = {'hidden': 256, 'outputs': 64, 'predictor_hidden': 256, 'momentum': 0.98}
    config.objective.byol.update(sizes)
  return config
