"""SLIP: CLIP, and a self-supervised loss between two views of each picture.

Mu et al., SLIP: Self-supervision meets Language-Image Pre-training, 2022.

  python launch.py --config=configs/slip.py             the embedded emoji, on two cores
  python launch.py --config=configs/slip.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/slip.py:validation  as the default, to choose settings with
  python launch.py --config=configs/slip.py:vit_b16 --config.data.name=NAME    on a TFDS data set
      with the fields `image` and `caption`; also vit_b32 and vit_l14

The paper has a third, milder view for the text, and gives the self-supervised loss a projection of
its own. Here the text is compared with the first of two views, and both losses are of the shared
embedding.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.VARIANTS


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/slip.py has no variant {variant!r}; use one of {VARIANTS}')
  config = clip.get_config(variant)
  config.name = 'slip'
  config.views = 2
  # A temperature of 0.1, whatever the learned one of the pairs
  config.objective = ConfigDict({'info_nce': 1.0, 'nt_xent': {'weight': 1.0, 'scale': 10.0}})
  if variant.startswith('vit'):
    # CLIP's paper models have none, and two views of one picture would be the same.
    config.augmentation = ConfigDict(
      {'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.4, 'hue': 0.1, 'grey': 0.2, 'flip': 0.5}
    )
    config.augmentation.update({'translate': 0.2, 'zoom': 0.5, 'stretch': 0.3})
  return config
