"""SuSana Distancia: few-shot classification of emoji subgroups, by distances between classes.

Mendez-Ruiz et al., SuSana Distancia is all you need: Enforcing class separability in metric
learning via two novel distance-based loss functions for few-shot image classification, 2023,
https://arxiv.org/abs/2305.09062

  python launch.py --config=configs/methods/susana.py             the embedded emoji, a minute
  python launch.py --config=configs/methods/susana.py:smoke       two tiny steps
  python launch.py --config=configs/methods/susana.py:validation  to choose settings with
  python launch.py --config=configs/methods/susana.py:resnet      a larger tower, 5-way 5-shot
  python launch.py --config=configs/methods/susana.py:scripts     letters of 58 scripts

`5_way_1_shot_accuracy` and the like are of episodes of subgroups that training never sees, one in
three; those of `scripts` are 20-way, of letters of Debian's fonts-noto-core, in scripts that
training never sees.
`--config.objective="('cross_entropy',)"` is a prototypical network.
"""

from ml_collections import ConfigDict

VARIANTS = ('default', 'smoke', 'validation', 'resnet', 'scripts')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/methods/susana.py has no variant {variant!r}; use one of {VARIANTS}')
  config = ConfigDict({'name': 'susana', 'variant': variant, 'task': 'episodes', 'seed': 0})
  config.data = ConfigDict({'name': 'emoji', 'folder': '', 'labels': 'subgroup', 'size': 40})
  config.data.split = 'train[vendor=noto|twemoji,skin_tone=]'
  config.data.parted_by = 'subgroup'  # its values are dealt to folds
  config.data.update({'folds': 3, 'train_folds': (0, 1), 'test_fold': 2})
  config.augmentation = ConfigDict({'degrees': 10.0, 'translate': 0.08, 'zoom': 0.3})
  image = {'size': 32, 'patch': 8, 'width': 64, 'layers': 0, 'heads': 4, 'pre_norm': False}
  image |= {'stem': 'convolution', 'stem_blocks': (0, 1, 1), 'pooling': 'mean'}
  config.model = ConfigDict({'image': image})
  # The mean of these; also 'support_icnn' and 'query_icnn'
  config.objective = ('cross_entropy', 'icnn', 'proto_triplet')
  config.neighbors, config.margin = 4, 0.5  # the authors'
  config.episodes = ConfigDict({'way': 5, 'shot': 5, 'queries': 5})
  config.optimizer = ConfigDict({'learning_rate': 1e-3, 'weight_decay': 0.05})
  config.total_steps, config.log_every, config.checkpoint_every = 1000, 100, 1000
  config.evaluation = ConfigDict({'way': 5, 'shots': (1, 5), 'queries': 5})
  config.evaluation.update({'episodes': 600, 'seed': 0})
  if variant == 'smoke':
    config.data.split = 'train[vendor=noto,skin_tone=]'
    config.total_steps, config.log_every, config.evaluation.episodes = 2, 1, 20
    config.model.image.update({'width': 16, 'stem_blocks': (0, 0, 0)})
  elif variant == 'validation':
    config.data.train_folds, config.data.test_fold = (1,), 0
  elif variant == 'resnet':
    config.model.image = ConfigDict({'tower': 'resnet', 'size': 64, 'width': 64, 'heads': 32})
    config.model.image.layers = (3, 4, 6, 3)
    config.data.size = 80
    config.total_steps, config.checkpoint_every = 40_000, 5_000
  elif variant == 'scripts':
    config.data.update({'name': 'scripts', 'split': 'train'})
    config.data.update({'labels': 'letter', 'parted_by': 'script'})
    config.total_steps, config.evaluation.way = 500, 20
  return config
