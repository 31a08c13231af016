"""SimCLR: an image encoder that tells two views of a picture from those of others; no texts.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020,
https://arxiv.org/abs/2002.05709

  python launch.py --config=configs/simclr.py             the embedded emoji, on two cores
  python launch.py --config=configs/simclr.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/simclr.py:validation  to choose settings with
  python launch.py --config=configs/simclr.py:rn50        the paper's recipe, on ImageNet
  python launch.py --config=configs/simclr.py:vit_b16     the same loss with MoCo v3's recipe for it

Other losses of views have configs of their own in configs/methods/, such as byol.py, dino.py and
decoupled_images.py.

The nearest training pictures classify the held-out ones by the features before the projector,
`heldout_style/group_neighbours_accuracy` and the like, while it trains; a linear probe does at the
end. `heldout_style/alignment`, `uniformity` and `effective_rank` are those of the embeddings of two
augmented views. For images without captions, such as `--config.data.name=fashion_mnist`, see
docs/data.md.

The paper's ResNet-50 is the plain one; `rn50` is CLIP's, with attention pooling. The paper jitters
colors with a probability of 0.8, here always, and its projector has batch norm.
"""

from ml_collections import ConfigDict

from configs import clip

PAPER = ('rn50', 'vit_b16')
VARIANTS = (*clip.SHARED, *PAPER)
_IMAGES = 1_281_167  # in ImageNet's training split


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/simclr.py has no variant {variant!r}; use one of {VARIANTS}')
  config = clip.recipe('default' if variant in PAPER else variant)
  config.name, config.variant = 'simclr', variant
  config.model = ConfigDict(
    {
      'name': 'encoder',
      'embed': 64,
      'projector': (config.model.image.width,),  # hidden widths; () for none
      'scale': config.model.scale,
      'remat': config.model.remat,
      'attention': config.model.attention,
      'dtype': config.model.dtype,
      'image': config.model.image,
    }
  )
  config.optimizer.update({'name': 'adamw', 'learning_rate': 1e-3})
  config.views = 2
  # The inverse of the paper's temperature, 0.1
  config.objective = ConfigDict({'nt_xent': {'weight': 1.0, 'scale': 10.0}})
  config.evaluation.probes = ('neighbours',) if variant == 'smoke' else ('neighbours', 'linear')
  config.evaluation.pairs = ()
  if variant == 'rn50':
    make_imagenet(config, variant, epochs=1000, batch_size=4096)
    make_lars(config, rate=0.3, weight_decay=1e-6)
    config.model.update({'embed': 128, 'projector': (2048,)})
  elif variant == 'vit_b16':
    make_imagenet(config, variant, epochs=300, batch_size=4096, warmup=40)
    make_adamw(config, rate=1.5e-4, weight_decay=0.1)
    config.model.update({'embed': 256, 'projector': (4096, 4096)})
    config.objective.nt_xent.scale = 5.0  # the inverse of MoCo v3's temperature, 0.2
  return config


def for_method(
  name: str, variant: str, variants: tuple[str, ...] = clip.SHARED, *, projector: bool = True
) -> ConfigDict:
  """Returns the config of a variant for configs/methods/NAME.py: this encoder, on two views.

  Args:
    name: name of the method.
    variant: the variant.
    variants: the variants that the method has, some of `VARIANTS`.
    projector: whether the model has a projector; a method may have its own in its place.
  """
  config = clip.for_method(name, variant, variants, get_config)
  if variant not in PAPER:
    config.evaluation.probes = ('neighbours',)
  if not projector:
    tower = config.model.image
    width = 32 * tower.width if variant == 'rn50' else tower.width
    config.model.update({'projector': (), 'embed': width})
  return config


def make_imagenet(
  config: ConfigDict, tower: str, *, epochs: int, batch_size: int, warmup: int = 10
) -> None:
  """The paper's tower, data and augmentation, and a schedule in epochs."""
  config.data.name, config.data.split = 'imagenet2012', 'train'
  config.data.size = 256
  config.model.image = clip.recipe(tower).model.image
  config.model.dtype = 'bfloat16'
  config.augmentation = ConfigDict(
    {'brightness': 0.8, 'contrast': 0.8, 'saturation': 0.8, 'hue': 0.2, 'grey': 0.2}
  )
  # A crop of 8% of the area or more
  config.augmentation.update({'crop': 0.92, 'flip': 0.5, 'blur': 0.5})
  config.batch_size = batch_size
  config.total_steps = epochs * _IMAGES // batch_size
  config.optimizer.warmup_fraction = warmup / epochs
  config.gather_bytes = 64 * 2**20
  config.log_every, config.checkpoint_every, config.evaluate_every = 100, 1_000, 10_000
  config.evaluation.splits, config.evaluation.zero_shot = ('validation',), ('label',)
  config.evaluation.probe_split = 'train[:10%]'


def make_lars(config: ConfigDict, *, rate: float, weight_decay: float) -> None:
  """LARS, with a learning rate per 256 images."""
  fields = {'name': 'lars', 'b1': 0.9, 'epsilon': 1e-8, 'clip_norm': 0.0}
  config.optimizer.update(fields | {'weight_decay': weight_decay})
  config.optimizer.learning_rate = rate * config.batch_size / 256


def make_adamw(config: ConfigDict, *, rate: float, weight_decay: float) -> None:
  """AdamW, with a learning rate per 256 images."""
  fields = {'name': 'adamw', 'b1': 0.9, 'b2': 0.999, 'epsilon': 1e-8, 'clip_norm': 0.0}
  config.optimizer.update(fields | {'weight_decay': weight_decay})
  config.optimizer.learning_rate = rate * config.batch_size / 256


def add_local_views(
  config: ConfigDict, count: int, *, global_crop: float, crop: float, crop_min: float
) -> None:
  """Two global views, and local ones; crops are shares of the area that are left out."""
  config.views = 2 + count
  config.augmentation.crop = global_crop
  local = config.augmentation.to_dict() | {'crop': crop, 'crop_min': crop_min}
  config.view_augmentation = ConfigDict({'2': local})


def crop_views(config: ConfigDict) -> None:
  """Views of the emoji that are boxes of them, and an encoder of 8 x 8 pixels, for dense losses."""
  # A crop of 20% of the area or more
  config.augmentation.update({'degrees': 0.0, 'shear': 0.0, 'crop': 0.8, 'flip': 0.5})
  config.model.image.update({'patch': 4, 'stem_blocks': (0, 1)})
  if config.variant != 'smoke':
    config.model.image.width = config.model.embed = 64
    config.evaluation.probes = (*config.evaluation.probes, 'segmentation')


def make_pixels(config: ConfigDict, epochs: int) -> None:
  """The recipe of PixPro on ImageNet, after `make_imagenet`."""
  config.batch_size, config.total_steps = 1024, epochs * _IMAGES // 1024
  config.optimizer.warmup_fraction = 5 / epochs
  make_lars(config, rate=1.0, weight_decay=1e-5)
  # BYOL's
  config.augmentation.update({'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.2, 'hue': 0.1})
