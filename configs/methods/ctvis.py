"""CTVIS: embeddings that associate instances over the frames of a video, trained by a memory bank.

Ying et al., CTVIS: Consistent Training for Online Video Instance Segmentation, 2023,
https://arxiv.org/abs/2307.12616

  python launch.py --config=configs/methods/ctvis.py             the embedded emoji, two minutes
  python launch.py --config=configs/methods/ctvis.py:smoke       two tiny steps
  python launch.py --config=configs/methods/ctvis.py:validation  to choose settings with

The videos are composed: emoji that move over each other, and change their style from frame to
frame. `association_accuracy` is of emoji that training never sees. `--config.reference=frame`
trains with one reference frame instead of the bank. The authors embed the queries of a segmentation
network, 100 per frame, in clips of ten frames.
"""

from ml_collections import ConfigDict

VARIANTS = ('default', 'smoke', 'validation')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/methods/ctvis.py has no variant {variant!r}; use one of {VARIANTS}')
  config = ConfigDict({'name': 'ctvis', 'variant': variant, 'task': 'tracking', 'seed': 0})
  config.data = ConfigDict({'name': 'emoji', 'folder': '', 'labels': 'concept'})
  config.data.split = 'train[skin_tone=,concept%5!=0]'
  config.data.test_split = 'train[skin_tone=,concept%5=0]'
  config.video = ConfigDict({'frames': 10, 'instances': 10, 'size': 96})
  config.reference, config.momentum = 'bank', 0.5  # the authors'
  image = {'size': 32, 'patch': 8, 'width': 64, 'layers': 0, 'heads': 4, 'pre_norm': False}
  image |= {'stem': 'convolution', 'stem_blocks': (0, 1, 1), 'pooling': 'mean'}
  config.model = ConfigDict({'embed': 64, 'image': image})
  config.optimizer = ConfigDict({'learning_rate': 1e-3, 'weight_decay': 0.05})
  config.batch_size = 2  # videos
  config.total_steps, config.log_every, config.checkpoint_every = 300, 50, 300
  config.evaluation = ConfigDict({'videos': 50, 'seed': 0})
  if variant == 'smoke':
    config.data.split = 'train[vendor=noto|twemoji,skin_tone=,concept%5=1]'
    config.data.test_split = 'train[vendor=noto|twemoji,skin_tone=,concept%5=0]'
    config.video.update({'frames': 3, 'instances': 4, 'size': 48})
    config.model.image.update({'width': 16, 'stem_blocks': (0, 0, 0)})
    config.total_steps, config.log_every, config.evaluation.videos = 2, 1, 4
  elif variant == 'validation':
    config.data.split = 'train[skin_tone=,concept%5>1]'
    config.data.test_split = 'train[skin_tone=,concept%5=1]'
  return config
