"""PixPro: an image encoder whose propagated pixels agree between two crops; no texts.

Xie et al., Propagate Yourself: Exploring Pixel-Level Consistency for Unsupervised Visual
Representation Learning, 2021, https://arxiv.org/abs/2011.10043

  python launch.py --config=configs/methods/pixpro.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/pixpro.py:smoke       two tiny steps
  python launch.py --config=configs/methods/pixpro.py:validation  to choose settings with
  python launch.py --config=configs/methods/pixpro.py:rn50        the paper's recipe, on ImageNet

The final evaluation segments composed scenes by a linear head on the frozen tokens,
`heldout_style/segmentation_mean_iou`. Views must be boxes of the image: rotation and shear
are errors. `--config.objective.pixpro.instance=1.0` adds the instance term.

Both views share one augmentation, as in configs/methods/byol.py. `rn50` trains for 100 epochs, and
its ResNet-50 is CLIP's.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'rn50')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('pixpro', variant, VARIANTS, projector=False)
  config.objective = ConfigDict({'pixpro': {'weight': 1.0, 'p': 2.0, 'pos_ratio': 0.7}})
  if variant == 'rn50':
    simclr.make_pixels(config, epochs=100)
  else:
    simclr.crop_views(config)
    # The paper's: 4096 and 256
    config.objective.pixpro.update({'hidden': 128, 'outputs': 64})
  return config
