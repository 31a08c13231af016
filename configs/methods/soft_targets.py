"""CLIP with soft targets: images are positives of captions that resemble their own.

The loss is the soft CLIP loss of Scotti et al., Reconstructing the Mind's Eye: fMRI-to-Image with
Contrastive Learning and Diffusion Priors, 2023, https://arxiv.org/abs/2305.18274, mixed with that
of the pairs as by Li et al., Align before Fuse, 2021, https://arxiv.org/abs/2107.07651.

  python launch.py --config=configs/methods/soft_targets.py             the embedded emoji
  python launch.py --config=configs/methods/soft_targets.py:smoke       two tiny steps
  python launch.py --config=configs/methods/soft_targets.py:validation  to choose settings with

Similarities of captions are those of the text tower in training, without a gradient. Equal captions
are left out of each other's targets, as from CLIP's negatives; `same` of None makes them positives.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('soft_targets', variant)
  config.objective = ConfigDict(
    {
      'soft_target_info_nce': {
        'weight': 1.0,
        'alpha': 0.4,  # of ALBEF; the soft CLIP loss has 1, and targets of a frozen model
        'target_scale': None,  # the learned scale; M3CoL, which uses the loss too: 8
      }
    }
  )
  return config
