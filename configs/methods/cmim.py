"""cMIM for an image encoder: an autoencoder with a contrastive term, without augmentation or texts.

Livne, Contrastive MIM: A Contrastive Mutual Information Framework for Unified Generative and
Discriminative Representation Learning, 2025, https://arxiv.org/abs/2502.19642

  python launch.py --config=configs/methods/cmim.py             the embedded emoji
  python launch.py --config=configs/methods/cmim.py:smoke       two tiny steps
  python launch.py --config=configs/methods/cmim.py:validation  to choose settings with

With `--config.objective.cmim.contrast=0.0` it is A-MIM. `train/cmim/contrast` is log 2 where all
latents agree, and `train/cmim/log_scale` falls, to −6 at the lowest.

k-NN evaluates the features before the heads, as in configs/simclr.py. The sizes of the authors'
code are a variant of configs/methods/cmim_captions.py, which decodes captions.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('cmim', variant, projector=False)
  width = config.model.image.width
  config.views, config.augmentation = 1, ConfigDict()
  config.data.size = config.model.image.size
  config.objective = ConfigDict(
    {
      'cmim': {
        'weight': 1.0,
        'latent': width,
        'contrast': 1.0,
        'reconstruction': 100.0,  # a variance of 0.01
        'scale': 10.0,  # the inverse of the paper's temperature, 0.1
        'divide': 'none',  # 'gradient' or 'value' divides the densities by the latent's width
        'width': width,
        'layers': 1,
        'attention_heads': 4,
      }
    }
  )
  return config
