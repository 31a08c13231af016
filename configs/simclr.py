"""SimCLR: an image encoder that tells two views of a picture from those of others; no texts.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020,
https://arxiv.org/abs/2002.05709

  python launch.py --config=configs/simclr.py             the embedded emoji, on two cores
  python launch.py --config=configs/simclr.py:smoke       two tiny steps, a minute in all

Other losses of two views: `--config.objective` of 'decoupled', or configs/methods/moco_images.py.
The nearest training pictures classify the held-out ones by the features before the projector,
`heldout_style/group_neighbours_accuracy` and the like, while it trains and at the end.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = ('default', 'smoke')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/simclr.py has no variant {variant!r}; use one of {VARIANTS}')
  config = clip.get_config(variant)
  config.name = 'simclr'
  config.model = ConfigDict(
    {
      'name': 'encoder',
      'embed': 64,  # the paper's: 128
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
  config.evaluation.probes = ('neighbours',)
  config.evaluation.pairs = ()
  return config


def for_method(name: str, variant: str) -> ConfigDict:
  """Returns the config of a variant for configs/methods/NAME.py: this encoder, on two views."""
  config = clip.for_method(name, variant)
  config.model = get_config('smoke' if variant == 'smoke' else 'default').model
  config.views, config.evaluation.probes = 2, ('neighbours',)
  return config
