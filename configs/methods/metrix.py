"""Metrix: a metric learning loss on examples and on mixtures of two classes, here emoji subgroups.

Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, 2022,
https://arxiv.org/abs/2106.04990

  python launch.py --config=configs/methods/metrix.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/metrix.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/metrix.py:validation  to choose settings with
  python launch.py --config=configs/methods/metrix.py:rn50        the authors' values, on CUB-200

Half of the subgroups train, and the others test: `test/recall@1`, `test/nmi` of k-means clusters,
and `test/utilization`, the mean squared distance of a test image to the nearest training image.
`--config.mixup.level` is 'none', 'input', 'feature' or 'embedding', and `--config.loss` one of
'contrastive_margin', 'multi_similarity' and 'proxy_anchor'.

The authors' ResNet-50 is the plain one, pretrained on ImageNet, with frozen batch norm and a linear
embedding; they draw batches at random on CUB-200, and decay the rate by 10 every 10 epochs. Here
negatives to mix with are drawn at random from another class, features are the pooled ones before
the projector, and `rn50` trains CLIP's ResNet-50 from scratch: these parts are our reading.
"""

from ml_collections import ConfigDict

VARIANTS = ('default', 'smoke', 'validation', 'rn50')
_EMOJI = 'train[vendor=noto|twemoji,skin_tone=,group!=flags,subgroup%{}]'


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/methods/metrix.py has no variant {variant!r}; use one of {VARIANTS}')
  config = ConfigDict({'name': 'metrix', 'variant': variant, 'task': 'metric_learning'})
  config.seed = 0
  config.data = ConfigDict({'name': 'emoji', 'folder': '', 'labels': 'subgroup'})
  config.data.split, config.data.test_split = _EMOJI.format('2=1'), _EMOJI.format('2=0')
  config.augmentation = ConfigDict({'flip': 0.5, 'crop': 0.4, 'degrees': 10.0})
  config.model = ConfigDict({'embed': 64, 'projector': (64,), 'dtype': 'float32'})
  config.model.image = ConfigDict(
    {
      'size': 32,
      'patch': 8,
      'stem': 'convolution',
      'stem_blocks': (0, 1, 1),
      'width': 64,
      'layers': 0,
      'heads': 4,
      'pre_norm': False,
      'pooling': 'mean',
    }
  )
  config.loss = 'contrastive_margin'
  config.mixup = ConfigDict(
    {
      'level': 'embedding',
      'weight': 0.4,  # of mixtures of positives and negatives; the authors', as are the next
      'anchor_weight': 0.3,  # of those of anchors and negatives; 0.4 at the other levels
      'alpha': 2.0,  # of the beta distribution of λ
    }
  )
  config.batch = ConfigDict({'classes': 16, 'examples': 4})  # per class
  config.optimizer = ConfigDict(
    {'learning_rate': 1e-3, 'weight_decay': 1e-4, 'warmup_fraction': 0.05}
  )
  config.total_steps, config.log_every, config.checkpoint_every = 600, 100, 300
  if variant == 'smoke':
    config.model.image.update({'size': 16, 'width': 32, 'stem_blocks': (0, 0, 1)})
    config.model.update({'embed': 16, 'projector': (16,)})
    config.batch.update({'classes': 4, 'examples': 2})
    config.total_steps, config.log_every = 2, 1
  elif variant == 'validation':
    config.data.split, config.data.test_split = _EMOJI.format('4=1'), _EMOJI.format('4=3')
  elif variant == 'rn50':
    config.data.update({'name': 'imagefolder:/data/cub200', 'labels': 'label'})
    config.data.split, config.data.test_split = 'train', 'test'
    config.model.update({'embed': 512, 'projector': (2048,)})
    config.model.image = ConfigDict(
      {'tower': 'resnet', 'size': 224, 'width': 64, 'layers': (3, 4, 6, 3), 'heads': 32}
    )
    config.batch.update({'classes': 20, 'examples': 5})
    config.optimizer.update({'learning_rate': 1e-4, 'warmup_fraction': 0.0})
    config.total_steps, config.checkpoint_every = 60 * 5864 // 100, 500
  return config
