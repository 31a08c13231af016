"""ScatSimCLR: SimCLR on a scattering transform, with a pretext task; no texts.

Kinakh et al., ScatSimCLR: self-supervised contrastive learning with pretext task regularization for
small-scale datasets, 2021, https://arxiv.org/abs/2108.13939

  python launch.py --config=configs/methods/scatsimclr.py             the embedded emoji
  python launch.py --config=configs/methods/scatsimclr.py:smoke       two tiny steps
  python launch.py --config=configs/methods/scatsimclr.py:validation  to choose settings with

The pretext task tells rotations of a third view; `--config.objective.pretext.task=jigsaw` tells
permutations of its tiles, and `.weight=0` is SimCLR. `train/pretext/accuracy` starts at chance.

k-NN evaluates the features before the projector, as in configs/simclr.py.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('scatsimclr', variant)
  config.views = 3
  # Two scales, as in the paper; its angles: 16, and 8 to 30 residual blocks
  smoke = variant == 'smoke'
  stem = {'stem': 'scattering', 'patch': 4, 'stem_angles': 2 if smoke else 8}
  config.model.image.update(stem | {'stem_blocks': (1,) if smoke else (2,)})
  config.objective = ConfigDict(
    {
      'nt_xent': {'weight': 1.0, 'scale': 2.0},  # the inverse of the paper's temperature, 0.5
      'pretext': {
        'weight': 0.3,
        'task': 'rotation',
        'view': 2,
        'widths': (32,) if smoke else (512, 128),
        'permutations': 35,  # of a jigsaw
      },
    }
  )
  return config
