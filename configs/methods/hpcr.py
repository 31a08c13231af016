"""HPCR: one pass over a stream of classes, with contrastive replay of proxies.

Lin et al., HPCR: Holistic Proxy-based Contrastive Replay for Online Continual Learning, 2023,
https://arxiv.org/abs/2309.15038

  python launch.py --config=configs/methods/hpcr.py             four tasks of emoji groups
  python launch.py --config=configs/methods/hpcr.py:smoke       two tiny tasks
  python launch.py --config=configs/methods/hpcr.py:validation  to choose settings with
  python launch.py --config=configs/methods/hpcr.py:cifar100    the paper's, on TFDS's CIFAR-100

PCR is HPCR with `loss.min_batch_for_pairs=0`, `loss.low=loss.high=1` and `loss.logits` and
`loss.structure` of 0. So are experience replay, with `loss.name=cross_entropy`, and supervised
contrastive replay, with `loss.name=supervised`. `--config.data.name=fashion_mnist
--config.data.labels=label --config.data.split='train[:10%]' --config.evaluation.split=test` is a
stream of clothes, `digits` one of digits. results.json has the final accuracy and the forgetting.

The paper's tower is a ResNet-18 of 20 channels; `cifar100` has our small ResNet with batch norm.
"""

from ml_collections import ConfigDict

VARIANTS = ('default', 'smoke', 'validation', 'cifar100')
_GROUPS = 'vendor=noto|twemoji,skin_tone=,concept'


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/methods/hpcr.py has no variant {variant!r}; use one of {VARIANTS}')
  config = ConfigDict({'name': 'hpcr', 'variant': variant, 'task': 'stream', 'seed': 0})
  config.data = ConfigDict({'name': 'emoji', 'folder': '', 'labels': 'group'})
  config.data.split = f'train[{_GROUPS}%5!=0]'
  config.evaluation = ConfigDict({'split': f'train[{_GROUPS}%5=0]', 'batch_size': 256})
  config.tasks, config.batch_size = 4, 10  # the paper: 10, 10
  config.replay = ConfigDict({'capacity': 200, 'batch_size': 10})  # the paper: 1000, 10
  config.loss = ConfigDict({'name': 'pcr', 'scale': 1 / 0.09})  # or cross_entropy, supervised
  config.loss.min_batch_for_pairs = 1  # the paper's threshold is not known; 0 for no pairs
  config.loss.update({'low': 0.5625, 'high': 1.8})  # of the periodic temperature, as the paper
  config.loss.period = 100  # the batches of a task, about; the paper: 500
  config.loss.update({'logits': 0.1, 'structure': 0.5})  # distillations, as the paper
  config.augmentation = ConfigDict({'crop': 0.5, 'flip': 0.5, 'brightness': 0.2, 'contrast': 0.2})
  image = {'size': 32, 'patch': 8, 'stem': 'convolution', 'stem_blocks': (0, 1, 1), 'width': 64}
  image |= {'layers': 0, 'heads': 4, 'pre_norm': False, 'pooling': 'mean'}
  config.model = ConfigDict({'image': image})
  # The paper: sgd, 0.1, without momentum
  config.optimizer = ConfigDict({'name': 'adamw', 'learning_rate': 1e-3, 'b1': 0.9, 'b2': 0.98})
  # Clipping would undo the periodic temperature, a factor on the loss.
  config.optimizer.update({'epsilon': 1e-6, 'weight_decay': 0.0, 'clip_norm': 0.0})
  config.log_every, config.checkpoint_every = 50, 500
  if variant == 'smoke':
    config.data.labels = 'subgroup'
    config.data.split = 'train[vendor=noto,subgroup=face-tongue|face-sleepy|lock|math]'
    config.evaluation.split = 'heldout_style[subgroup=face-tongue|face-sleepy|lock|math]'
    config.tasks, config.batch_size, config.log_every = 2, 4, 1
    config.replay.update({'capacity': 8, 'batch_size': 4})
    config.model.image.update({'width': 16, 'stem_blocks': (0, 0, 1)})
  elif variant == 'validation':
    config.data.split = f'train[{_GROUPS}%5!=0,concept%4!=0]'
    config.evaluation.split = f'train[{_GROUPS}%5!=0,concept%4=0]'
  elif variant == 'cifar100':
    config.data.update({'name': 'tfds:cifar100', 'split': 'train', 'labels': 'label'})
    config.evaluation.split, config.tasks, config.loss.period = 'test', 10, 500
    config.replay.capacity = 1000
    config.model.image.update({'stem_blocks': (2, 2, 2), 'stem_norm': 'batch', 'width': 160})
    config.optimizer.update({'name': 'sgd', 'learning_rate': 0.1, 'b1': 0.0})
  return config
