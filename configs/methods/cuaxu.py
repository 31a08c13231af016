"""CLIP with uniformity, alignment and cross-modal uniformity (CUAXU), which narrow the gap.

Fahim et al., It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap, 2024,
https://arxiv.org/abs/2405.18570

  python launch.py --config=configs/methods/cuaxu.py             the embedded emoji
  python launch.py --config=configs/methods/cuaxu.py:smoke       two tiny steps
  python launch.py --config=configs/methods/cuaxu.py:validation  to choose settings with
  python launch.py --config=configs/methods/cuaxu.py:vit_b32 --config.init_from=FOLDER    fine-tunes
      OpenAI's CLIP, as the authors do, on COCO: `--config.data.name` is
      karpathy:/data/coco/dataset_coco.json

The weights and the sharpness are those of the authors' code, whose temperature is 0.01 throughout.
By default it is learned; `--config.model.scale=100` with
`--config.optimizer.rates='(("log_scale", 0.0),)'` fixes it. Without cross-modal uniformity the loss
is CUA: `--config.objective.cross_uniformity=0`. `config.evaluation.arithmetic` of ('vendor',)
evaluates the arithmetic of images and words.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = (*clip.SHARED, 'vit_b32')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('cuaxu', variant, VARIANTS)
  is_paper = variant == 'vit_b32'
  contrastive = ConfigDict({'weight': 1.0, 'scale': 100.0}) if is_paper else 1.0
  config.objective = ConfigDict({'info_nce': contrastive, **clip.CUAXU})
  if is_paper:
    config.data.update({'name': 'coco', 'captions': 'captions', 'crop': ()})
    config.model.image.activation = config.model.text.activation = 'quick_gelu'
    config.batch_size = 64
    config.total_steps = 9 * 118_287 // 64  # epochs of COCO's images
    config.optimizer.update({'learning_rate': 1e-6, 'b1': 0.9, 'b2': 0.99, 'epsilon': 1e-8})
    config.optimizer.update({'weight_decay': 0.1, 'clip_norm': None})
    config.optimizer.update({'decay': 'constant', 'warmup_fraction': 0.0})
    config.evaluation.update({'splits': ('test',), 'texts': ('captions',)})
  return config
