"""NaFlex: SigLIP on images at their own aspect, as patches of several sequence lengths.

Tschannen et al., SigLIP 2: Multilingual Vision-Language Encoders, 2025.
Dehghani et al., Patch n' Pack: NaViT, a Vision Transformer for any Aspect Ratio and Resolution,
  2023.

  python launch.py --config=configs/naflex.py             the included emoji, on two cores
  python launch.py --config=configs/naflex.py:smoke       two tiny steps, within a minute
  python launch.py --config=configs/naflex.py:validation  the default without the held-out splits,
      to choose hyperparameters
  python launch.py --config=configs/naflex.py:vit_b16 --config.data.name=NAME    the paper's towers
      and sequence lengths, on data with the fields `image` and `caption`; with
      --config.init_from=FOLDER from weights of square images, as in the paper

Each batch has one sequence length, and about the same number of patches. The emoji are square, so
random crops give them other aspects. docs/naflex.md describes the fields.
"""

from ml_collections import ConfigDict

from configs import clip, siglip

VARIANTS = (*clip.SHARED, 'vit_b16')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/naflex.py has no variant {variant!r}; use one of {VARIANTS}')
  config = siglip.get_config(variant)
  config.name = 'naflex'
  image = config.model.image
  if variant == 'vit_b16':
    image.size = 256  # 16 x 16 position embeddings
    image.interpolation = 'bilinear'
    config.data.sequence_lengths = (128, 256, 576, 784, 1024)
    config.data.batch_multiple = 256
    config.data.crop = ()
    config.batch_size = 8192  # 32,768 images of 256 patches
    return config
  config.data.sequence_lengths = (16, 25) if variant == 'smoke' else (16, 25, 36)
  config.data.crop = (0.5, 1.0)
  colors = ('brightness', 'contrast', 'saturation', 'hue', 'grey')
  config.augmentation = ConfigDict({name: config.augmentation[name] for name in colors})
  # Convolutions would cross the borders between patches.
  image.stem, image.stem_blocks = 'patch', None
  image.layers = 1 if variant == 'smoke' else 4
  image.pooling = 'attention'
  image.interpolation = 'bilinear'
  config.optimizer.update({'name': 'adamw', 'learning_rate': 1e-3})
  return config
