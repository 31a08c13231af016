"""FLIP: CLIP whose vision transformer sees a random half of the patches, and at the end all.

Li et al., Scaling Language-Image Pre-training via Masking, 2022, https://arxiv.org/abs/2212.00794

  python launch.py --config=configs/methods/flip.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/flip.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/flip.py:validation  to choose settings with
  python launch.py --config=configs/methods/flip.py:vit_b16 --config.data.name=NAME    the paper's
      recipe, on data with the fields `image` and `caption`

`--config.model.image.patch_dropout=0.75` is the paper's other share; 0, with
`--config.unmasked_fraction=0`, is CLIP with the same tower. The paper reports 69.6% and 68.2%
zero-shot on ImageNet at shares of 0.5 and 0.75 in batches of 32k and 64k, where its CLIP has 68.6%
in batches of 16k, in 0.50 and 0.33 of the time (ViT-L/16, 6.4 epochs of LAION-400M). Its unmasked
tuning is a second run of a hundredth of the steps, whose learning rate peaks at a hundredth.

Here the tuning is the end of one schedule, positions are learned, and the text tower is CLIP's.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = (*clip.SHARED, 'vit_b16')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('flip', variant, VARIANTS)
  config.model.image.update({'patch_dropout': 0.5, 'pooling': 'mean'})
  if variant == 'vit_b16':
    config.model.image.update({'class_token': True, 'pre_norm': False, 'stem_bias': True})
    config.model.text.length = 32
    config.data.crop = (0.5, 1.0)
    config.augmentation.flip = 0.5
    config.batch_size, config.total_steps = 65_536, 197_445
    config.unmasked_fraction = 100 / 10_100
    config.optimizer.update({'learning_rate': 1.024e-3, 'b2': 0.95})
    config.optimizer.warmup_fraction = 20 / 10_100
  else:
    layers = 1 if variant == 'smoke' else 4
    config.model.image.update({'stem': 'patch', 'stem_blocks': None, 'patch': 4, 'layers': layers})
    config.optimizer.update({'name': 'adamw', 'learning_rate': 1e-3})
    config.unmasked_fraction = 0.1
  return config
