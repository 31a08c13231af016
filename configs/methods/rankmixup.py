"""RankMixup: an image classifier that ranks the confidences of mixtures, for calibration.

Noh et al., RankMixup: Ranking-Based Mixup Training for Network Calibration, 2023,
https://arxiv.org/abs/2308.11990

  python launch.py --config=configs/methods/rankmixup.py    the groups of the embedded emoji
  python launch.py --config=configs/methods/rankmixup.py --config.loss.name=mrl    or mixup, or
      cross_entropy
  python launch.py --config=configs/methods/rankmixup.py:smoke         two tiny steps
  python launch.py --config=configs/methods/rankmixup.py:validation    to choose settings with
  python launch.py --config=configs/methods/rankmixup.py:cifar10       the paper's recipe, on TFDS's
      CIFAR-10; or tiny_imagenet, on images /data/tiny-imagenet-200/{train,val}/CLASS/*

results.json has the accuracy and the calibration errors of each split of `evaluation.splits`. The
paper's ResNet-50 is one for images of 32 or 64 pixels, here CLIP's, with attention pooling; its
learning rate falls in steps, here by a cosine.
"""

from ml_collections import ConfigDict

VARIANTS = ('default', 'smoke', 'validation', 'cifar10', 'tiny_imagenet')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/methods/rankmixup.py has no variant {variant!r}; use {VARIANTS}')
  config = ConfigDict({'name': 'rankmixup', 'variant': variant, 'task': 'classification'})
  config.seed, config.total_steps, config.batch_size = 0, 750, 32
  config.log_every, config.checkpoint_every = 50, 200
  plain = 'skin_tone=,group!=flags,concept%5'
  trained, tested = (f'train[vendor=noto|twemoji,{plain}{how}0]' for how in ('!=', '='))
  config.data = ConfigDict({'name': 'emoji', 'folder': '', 'split': trained, 'labels': 'group'})
  config.data.size = 40  # before the augmentation
  config.augmentation = ConfigDict({'translate': 0.1, 'zoom': 0.1, 'flip': 0.5})
  # A small ResNet
  tower = {'size': 32, 'patch': 8, 'stem': 'convolution', 'stem_blocks': (0, 1, 1), 'width': 64}
  tower |= {'layers': 0, 'heads': 4, 'pre_norm': False, 'pooling': 'mean'}
  config.model = ConfigDict({'dtype': 'float32', 'image': tower})
  config.loss = ConfigDict({'name': 'm_ndcg', 'weight': 0.1})  # weight of the ranking, the paper's
  config.loss.alpha = 2.0  # of the Beta distribution of shares
  config.loss.margin = 2.0  # of mrl, in logits
  config.loss.copies = 3  # mixtures of each image in m_ndcg; the others have one
  rate = {'learning_rate': 2e-3, 'warmup_fraction': 0.05, 'decay': 'cosine'}
  adamw = {'name': 'adamw', 'b1': 0.9, 'b2': 0.98, 'epsilon': 1e-6, 'weight_decay': 0.05}
  config.optimizer = ConfigDict(rate | adamw | {'clip_norm': 1.0})
  config.evaluation = ConfigDict({'splits': ('heldout_style', tested), 'bins': 15})
  config.evaluation.batch_size = 256
  if variant in ('smoke', 'validation'):
    config.data.split = f'train[vendor=noto,{plain}!=0]'
    config.evaluation.splits = (f'train[vendor=twemoji,{plain}!=0]',)
  if variant == 'smoke':
    config.model.image.update({'width': 16, 'stem_blocks': (0, 0, 0)})
    config.total_steps, config.batch_size, config.log_every = 2, 16, 1
  elif variant in ('cifar10', 'tiny_imagenet'):
    make_paper(config, variant == 'cifar10')
  return config


def make_paper(config: ConfigDict, cifar: bool) -> None:
  """ResNet-50 on 45,000 images of CIFAR-10, 200 times, or 100,000 of Tiny-ImageNet, 100 times."""
  config.batch_size, size = (128, 32) if cifar else (64, 64)
  config.total_steps = (200 * 45_000 if cifar else 100 * 100_000) // config.batch_size
  config.data.name = 'tfds:cifar10' if cifar else 'imagefolder:/data/tiny-imagenet-200'
  config.data.update({'split': 'train[:90%]' if cifar else 'train', 'labels': 'label'})
  config.data.size = size
  config.augmentation = ConfigDict({'translate': 0.125, 'flip': 0.5})
  tower = {'tower': 'resnet', 'size': size, 'width': 64, 'layers': (3, 4, 6, 3), 'heads': 32}
  config.model = ConfigDict({'dtype': 'bfloat16', 'image': tower})
  if not cifar:
    config.loss.update({'alpha': 1.0, 'margin': 1.0})
  sgd = {'name': 'sgd', 'learning_rate': 0.1, 'warmup_fraction': 0.0, 'weight_decay': 5e-4}
  config.optimizer.update(sgd | {'clip_norm': 2.0})
  config.log_every, config.checkpoint_every = 100, 5_000
  config.evaluation.splits = ('test',) if cifar else ('val',)
