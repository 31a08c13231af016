"""SigLIP: CLIP with a sigmoid loss, to which each pair is a question of its own.

Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.

  python launch.py --config=configs/siglip.py             the embedded emoji, on two cores
  python launch.py --config=configs/siglip.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/siglip.py:validation  as the default, to choose settings with
  python launch.py --config=configs/siglip.py:vit_b16 --config.data.name=NAME    on a TFDS data set
      with the fields `image` and `caption`; also vit_b32 and vit_l14

Pictures with equal captions are negatives of each other, as in the paper, while configs/clip.py
leaves them out. With config.objective = {'sigmoid': 1.0} they are left out here too.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.VARIANTS


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/siglip.py has no variant {variant!r}; use one of {VARIANTS}')
  config = clip.get_config(variant)
  config.name = 'siglip'
  config.model.scale = 10.0
  config.model.bias = -10.0
  config.objective = ConfigDict({'sigmoid': {'weight': 1.0, 'same': None}})
  config.optimizer.max_scale = 0.0  # no bounds, as in the paper's code
  if variant.startswith('vit'):
    make_paper(config)
  return config


def make_paper(config: ConfigDict) -> None:
  """The published towers and hyper-parameters, at CLIP's image sizes and with its tokenizer.

  The text tower is as wide and as deep as the image tower, and sees its padding.
  """
  image, text = config.model.image, config.model.text
  shared = {'activation': 'gelu_tanh', 'epsilon': 1e-6}
  image.update({'pooling': 'attention', 'pre_norm': False, 'stem_bias': True, **shared})
  text.update({'length': 64, 'width': image.width, 'layers': image.layers, 'heads': image.heads})
  text.update({'causal': False, 'mask_padding': False, 'pooling': 'last', **shared})
  config.model.embed = image.width
  config.model.image_projection = 'none'
  config.model.text_projection = 'affine'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.b2 = 0.95
  config.optimizer.weight_decay = 1e-4
