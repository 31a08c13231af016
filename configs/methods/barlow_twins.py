"""Barlow Twins: an image encoder whose features of two views correlate with themselves; no texts.

Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021,
https://arxiv.org/abs/2103.03230

  python launch.py --config=configs/methods/barlow_twins.py         the embedded emoji, on two cores
  python launch.py --config=configs/methods/barlow_twins.py:smoke   two tiny steps, a minute in all
  python launch.py --config=configs/methods/barlow_twins.py:rn50    the paper's recipe, on ImageNet
      also with validation, to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py.

Both views share one augmentation. The authors blur one of them always and the other with a
probability of 0.1, and solarize the other with 0.2; `rn50` blurs with 0.5.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'rn50')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('barlow_twins', variant, VARIANTS, projector=False)
  config.objective = ConfigDict({'barlow_twins': {'weight': 1.0}})
  if variant == 'rn50':
    simclr.make_imagenet(config, variant, epochs=1000, batch_size=2048)
    simclr.make_lars(config, rate=0.2, weight_decay=1.5e-6)
    config.optimizer.rates = (('.*/(bias|scale)', 0.024),)  # 0.0048 per 256 images
    config.augmentation.update({'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.2, 'hue': 0.1})
  else:
    # The paper's: 8192 and 8192
    config.objective.barlow_twins.update({'hidden': 512, 'outputs': 512})
  return config
