"""SLIP: CLIP, and SimCLR between two views of each image through a projector.

Mu et al., SLIP: Self-supervision meets Language-Image Pre-training, 2022,
https://arxiv.org/abs/2112.12750

  python launch.py --config=configs/methods/slip.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/slip.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/slip.py:validation  to choose settings with
  python launch.py --config=configs/methods/slip.py:vit_b16 --config.data.name=NAME    the paper's
      recipe, on data with the fields `image` and `caption`; also with vit_b32 and vit_l14

With three views of each image the image tower does three times the work of CLIP's;
`--config.views=2` compares the text's view with one more. All views share `config.augmentation`;
the paper has a milder one for the text's view. It reports 42.8% zero-shot on ImageNet where its
CLIP has 37.6% (ViT-B/16, 25 epochs of YFCC15M).
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = (*clip.SHARED, *clip.PAPER)


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('slip', variant, VARIANTS)
  config.views = 3
  config.objective = ConfigDict({'slip': {'weight': 1.0}})
  if variant in clip.PAPER:
    clip.make_yfcc15m(config, epochs=25)
  else:
    # The paper's: 4096 and 256, for towers of width 384 to 1024
    config.objective.slip.update({'hidden': 512, 'outputs': 128})
  return config
