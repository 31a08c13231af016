"""LiT: locked-image tuning, a text tower trained to read out a frozen, pretrained image tower.

Zhai et al., LiT: Zero-Shot Transfer with Locked-image text Tuning, 2022,
https://arxiv.org/abs/2111.07991

  python launch.py --config=configs/simclr.py                 the image tower of the emoji, and
  python launch.py --mode=export --workdir=runs/simclr-default    its weights
  python launch.py --config=configs/methods/lit.py            the embedded emoji, on two cores
  python launch.py --config=configs/methods/lit.py:smoke      two tiny steps, of a random tower
  python launch.py --config=configs/methods/lit.py:validation  to choose settings with
  python launch.py --config=configs/methods/lit.py:vit_b16 --config.data.name=NAME    the authors'
      public recipe, on data with the fields `image` and `caption`, with --config.init_from=FOLDER
      of the weights of a model with this image tower

The embeddings of the images are the features of the tower. `--config.optimizer.rates=()` leaves it
unlocked. The paper finds that locked, pretrained image towers with unlocked text towers work best,
pretrained with labels or without. big_vision's recipe begins with BERT as the text tower, and
with a ViT-B/16 of ImageNet-21k; here the text tower is CLIP's, and trained from the start.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = (*clip.SHARED, 'vit_b16')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('lit', variant, VARIANTS)
  config.init_towers = ('image',)
  config.optimizer.rates = (('image/.*', 0.0),)
  config.model.embed = config.model.image.width
  config.model.image_projection, config.model.text_projection = 'none', 'affine'
  if variant == 'vit_b16':
    config.model.scale, config.model.text.length = 10.0, 16
    config.augmentation.update({'flip': 0.5, 'rand_augment': 1 / 3})
    config.data.crop = ()
    config.batch_size, config.total_steps = 4096, 5000
    config.optimizer.update({'learning_rate': 1e-3, 'warmup_fraction': 0.03, 'b2': 0.999})
    config.optimizer.weight_decay = 10.0  # big_vision's 0.01, which the learning rate leaves alone
  elif variant != 'smoke':
    config.init_from = 'runs/simclr-default/export'
  return config
