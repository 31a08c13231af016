"""SigLIP: CLIP with a sigmoid loss, a binary classification of each pair.

Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.

  python launch.py --config=configs/siglip.py             the included emoji, on two cores
  python launch.py --config=configs/siglip.py:smoke       two tiny steps, within a minute
  python launch.py --config=configs/siglip.py:validation  the default without the held-out splits,
      to choose hyperparameters
  python launch.py --config=configs/siglip.py:vit_b16 --config.data.name=NAME    the paper's recipe,
      on data with the fields `image` and `caption`; also vit_b32 and vit_l14

As in the paper, images with equal captions are negatives of each other; configs/clip.py excludes
such pairs. config.objective = {'sigmoid': 1.0} excludes them here too.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = (*clip.SHARED, *clip.PAPER)


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/siglip.py has no variant {variant!r}; use one of {VARIANTS}')
  config = clip.recipe(variant)
  config.name = 'siglip'
  config.model.scale = 10.0
  config.model.bias = -10.0
  config.objective = ConfigDict({'sigmoid': {'weight': 1.0, 'same': None}})
  config.optimizer.max_scale = 0.0  # no bounds, like the authors' code
  if variant in clip.PAPER:
    make_paper(config)
  return config


def make_paper(config: ConfigDict) -> None:
  """The published towers and hyperparameters, with CLIP's image sizes and tokenizer.

  The text tower has the width and depth of the image tower, and attends to padding.
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
