"""SwAV: an image encoder whose views predict each other's clusters; no texts.

Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, 2020,
https://arxiv.org/abs/2006.09882

  python launch.py --config=configs/methods/swav.py         the embedded emoji, on two cores
  python launch.py --config=configs/methods/swav.py:smoke   two tiny steps, a minute in all
  python launch.py --config=configs/methods/swav.py:rn50    the paper's recipe, on ImageNet
      also with validation, to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py. The loss starts near
ln K. Two views are global, and two or, in the paper, six are local. All have the same number of
pixels here, so that a step of `rn50` takes longer than the paper's.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'rn50')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('swav', variant, VARIANTS, projector=False)
  config.objective = ConfigDict({'swav': {'weight': 1.0}})
  paper = variant == 'rn50'
  if paper:
    simclr.make_imagenet(config, variant, epochs=800, batch_size=4096)
    simclr.make_lars(config, rate=0.3, weight_decay=1e-6)
    config.objective.swav.prototypes = 3072  # the paper's 3000 divide over fewer devices
  else:
    # The paper's: 2048, 128 and 3000
    config.objective.swav.update({'hidden': 256, 'outputs': 64, 'prototypes': 256})
  # The paper's crops: 14% of the area or more, and 5% to 14%
  local = {'crop': 0.95, 'crop_min': 0.86} if paper else {'crop': 0.8, 'crop_min': 0.5}
  simclr.add_local_views(config, 6 if paper else 2, global_crop=0.86 if paper else 0.5, **local)
  return config
