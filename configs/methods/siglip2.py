"""SigLIP 2's self-supervised terms: SigLIP with self-distillation and masked prediction of images.

Tschannen et al., SigLIP 2: Multilingual Vision-Language Encoders, 2025,
https://arxiv.org/abs/2502.14786

  python launch.py --config=configs/methods/siglip2.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/siglip2.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/siglip2.py:validation  to choose settings with
  python launch.py --config=configs/methods/siglip2.py:vit_b16 --config.data.name=NAME    the
      paper's weights and views, on data with the fields `image` and `caption`

The views of an image are one that goes with the text, a global one, masked for the model and whole
for the target encoder, and local ones. `train/self_distillation/entropy` is that of the targets: 0
or ln K where they collapse.

The paper adds the terms in the last fifth of the steps, with a quarter of the weight for a ViT-B,
half for L and g, and all for So400m. It has eight smaller local views and an unaugmented view for
the text, and a captioning decoder from the start. Here the crops are those of SILC, all views have
one size, there is no decoder, and on the emoji the terms are there throughout.
"""

from ml_collections import ConfigDict

from configs import clip, siglip

VARIANTS = (*clip.SHARED, 'vit_b16')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config, base = clip.for_method('siglip2', variant, VARIANTS), siglip.get_config(variant)
  config.model, config.optimizer, config.objective = base.model, base.optimizer, base.objective
  weights = {'self_distillation': 0.25, 'masked_prediction': 0.0625}
  # The defaults, DINO's: 2048, 256, 65,536 and 0.996
  sizes = {'hidden': 256, 'bottleneck': 64, 'prototypes': 1024, 'momentum': 0.98}
  if variant == 'vit_b16':
    config.batch_size, config.total_steps, config.views = 32_768, 1_220_703, 10
    config.optimizer.warmup_fraction = 20_000 / config.total_steps
    config.data.size, config.data.crop, config.model.image.size = 256, (), 256
    start, sizes = config.total_steps * 4 // 5, {}
    weights = {name: ((start, 0.0), (start + 1, weight)) for name, weight in weights.items()}
  else:
    config.views, config.model.image.layers = 4, 1 if variant == 'smoke' else 4
    image = {'stem': 'patch', 'stem_blocks': None, 'stem_bias': True, 'pooling': 'attention'}
    config.model.image.update(image)
    config.optimizer.update({'name': 'adamw', 'learning_rate': 1e-3})
  config.objective.update({name: {'weight': w} | sizes for name, w in weights.items()})
  for view, crop in {'1': {'crop': 0.6}, '2': {'crop': 0.95, 'crop_min': 0.6}}.items():
    config.view_augmentation[view] = config.augmentation.to_dict() | crop
  return config
