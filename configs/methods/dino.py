"""DINO: an image encoder whose views predict the prototypes of its moving average; no texts.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021,
https://arxiv.org/abs/2104.14294

  python launch.py --config=configs/methods/dino.py           the embedded emoji, on two cores
  python launch.py --config=configs/methods/dino.py:smoke     two tiny steps, a minute in all
  python launch.py --config=configs/methods/dino.py:vit_b16   the paper's recipe, on ImageNet
      also with validation, to choose settings with

k-NN evaluates the features before the head, as in configs/simclr.py: of the model, and with
`--config.evaluate_target` of the target, which the paper evaluates. `train/dino/entropy` is that of
the targets: 0 or ln K where they collapse. Two views are global, and two or, in the paper, ten are
local; here all have the same number of pixels. The paper raises the weight decay to 0.4 along a
cosine, and solarizes one global view.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'vit_b16')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('dino', variant, VARIANTS, projector=False)
  config.objective = ConfigDict({'dino': {'weight': 1.0}})
  paper = variant == 'vit_b16'
  if paper:
    simclr.make_imagenet(config, variant, epochs=400, batch_size=1024)
    simclr.make_adamw(config, rate=5e-4, weight_decay=0.04)
    config.optimizer.clip_norm = 3.0
    config.augmentation.update({'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.2, 'hue': 0.1})
  else:
    # The paper's: 2048, 256, 65,536 and 0.996
    sizes = {'hidden': 256, 'bottleneck': 64, 'prototypes': 1024, 'momentum': 0.98}
    config.objective.dino.update(sizes)
  # The paper's crops: 40% of the area or more, and 5% to 40%
  local = {'crop': 0.95, 'crop_min': 0.6} if paper else {'crop': 0.8, 'crop_min': 0.5}
  simclr.add_local_views(config, 10 if paper else 2, global_crop=0.6 if paper else 0.5, **local)
  return config
