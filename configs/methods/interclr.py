"""InterCLR: MoCo and a term between images that share a pseudo-label; no texts.

Xie et al., Delving into Inter-Image Invariance for Unsupervised Visual Representations, 2020,
https://arxiv.org/abs/2008.11702

  python launch.py --config=configs/methods/interclr.py             the embedded emoji
  python launch.py --config=configs/methods/interclr.py:smoke       two tiny steps
  python launch.py --config=configs/methods/interclr.py:validation  to choose settings with

The paper's findings one by one: `--config.objective.interclr.cluster_every=1000` for pseudo-labels
that k-means renews every so many steps; `.nearest=256` for the hardest negatives, and 0 for
random ones; `.margin=0.0` for no margin. With `.inter=0.0` it is configs/methods/moco_images.py.

k-NN evaluates the features before the projector, as in configs/simclr.py. The bank takes 4 D + 4
bytes per example. `train/interclr/labeled` is 1 after the first epoch.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config, smoke = simclr.for_method('interclr', variant), variant == 'smoke'
  config.objective = ConfigDict(
    {
      'interclr': {
        'weight': 1.0,
        'length': 1024,  # the paper's: 65,536
        'momentum': 0.99,  # the paper's: 0.999
        'scale': 5.0,  # the inverse of the paper's temperature, 0.2
        'inter': 0.25,
        'clusters': 16 if smoke else 256,  # the paper's: 10,000
        # The paper's: 16,384 of the 128,000 nearest, in 1.28 million
        'negatives': 16 if smoke else 256,
        'nearest': 64 if smoke else 1024,
        'margin': -0.5,
        'margin_kind': 'cosine',  # or 'arc'
        'cluster_every': 0,  # steps between clusterings by k-means; 0 for online labels
      }
    }
  )
  return config
