"""CLIP whose negatives are those of a group, a slice of the batch, as in M2-Encoder's grouped ITC.

Guo et al., M2-Encoder: Advancing Bilingual Image-Text Understanding by Large-scale Efficient
Pretraining, 2024, https://arxiv.org/abs/2401.15896

  python launch.py --config=configs/methods/grouped.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/grouped.py:bilingual   captions in English and Chinese
  python launch.py --config=configs/methods/grouped.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/grouped.py:validation  to choose settings with

Groups divide the batch whatever the mesh. On 8 devices, 4 groups are of two devices each, which
exchange embeddings with each other only; 16 groups exchange none. `--config.micro_batches=8` is
the paper's batch accumulation: gradient caching, with the same groups and the same gradient.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = (*clip.SHARED, 'bilingual')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  # The variant sets what follows; the rest is the default's.
  config = clip.for_method('grouped', 'default' if variant == 'bilingual' else variant, VARIANTS)
  config.variant = variant
  # The paper's groups are nodes; their number is not in its public code. Its negatives are plain:
  # 'same': None also counts those of equal captions.
  config.objective = ConfigDict({'info_nce': {'weight': 1.0, 'groups': 4}})
  if variant == 'bilingual':
    config.data.tokenizer = 'emoji_en_zh'
    config.data.captions = 'caption*0.5+names.zh*0.5'
    config.evaluation.texts = ('caption', 'names.zh')
  return config
