"""CoCa: contrastive and captioning losses from one pass of an image tower and a text decoder.

Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022.

  python launch.py --config=configs/coca.py             the included emoji, on two cores
  python launch.py --config=configs/coca.py:smoke       two tiny steps, within a minute
  python launch.py --config=configs/coca.py:validation  the default without the held-out splits, to
      choose hyperparameters
  python launch.py --config=configs/coca.py:base --config.data.name=NAME    the paper's recipe, on
      data with the fields `image` and `caption`; also large, and giant, the paper's CoCa
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = ('default', 'smoke', 'validation', 'base', 'large', 'giant')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/coca.py has no variant {variant!r}; use one of {VARIANTS}')
  config = emoji(variant) if variant in clip.VARIANTS else paper(variant)
  config.name = config.model.name = 'coca'
  config.variant = variant
  return config


def emoji(variant: str) -> ConfigDict:
  """CLIP's small towers on the included emoji, and a decoder of the text tower's size."""
  config = clip.recipe(variant)
  model = config.model
  del model.image.pooling
  # The paper's pooler is 'cascade': the image embedding is pooled from the captioner's memory.
  model.pooler = 'parallel'
  model.queries = 16  # size of the captioner's memory; equals the number of patches
  model.pooler_heads = model.image.heads
  model.decoder = ConfigDict({'layers': model.text.layers, 'heads': model.text.heads})
  config.objective = ConfigDict({'info_nce': 1.0, 'captioning': 2.0})
  # Captions generated in the final evaluation; the baseline is each image's nearest train caption.
  config.evaluation.captions = ConfigDict({'beams': 4, 'length_penalty': 0.0, 'rerank': True})
  return config


def paper(variant: str) -> ConfigDict:
  """The paper's models and hyperparameters: 500,000 steps at 288 pixels.

  The paper does not give D, which is also the width of the poolers, or the width of a head. The
  values here give its parameter counts, 383 million, 787 million and 2.1 billion; heads of the text
  decoder have the same width in all models.
  """
  # (D, width, width of the MLPs, heads, image layers, layers of each half of the text decoder)
  sizes = {
    'base': (512, 768, 3072, 12, 12, 12),
    'large': (768, 1024, 4096, 16, 24, 12),
    'giant': (768, 1408, 6144, 16, 40, 18),
  }
  embed, width, hidden, heads, image_layers, text_layers = sizes[variant]
  shared = {'heads': heads, 'mlp_ratio': hidden / width, 'scan': True}
  image = {'size': 288, 'patch': 18, 'width': width, 'layers': image_layers, 'pre_norm': False}
  text = {'vocabulary': 64_000, 'length': 76, 'width': width}
  decoder = {'layers': text_layers, 'head_width': 64}
  config = clip.recipe('vit_b16')
  config.data.size = 288
  config.model.embed = embed
  config.model.image = ConfigDict(image | shared)
  config.model.text = ConfigDict(text | decoder | shared)
  config.model.decoder = ConfigDict(decoder | shared)
  config.model.pooler = 'cascade'
  config.model.queries = 256
  config.model.pooler_heads = 8
  config.objective = ConfigDict({'info_nce': 1.0, 'captioning_streamed': 2.0})
  config.batch_size = 65_536
  config.total_steps = 500_000
  config.optimizer.name = 'adafactor'
  config.optimizer.learning_rate = 8e-4
  config.optimizer.warmup_fraction = 0.02
  config.optimizer.decay = 'linear'
  config.optimizer.b2 = 0.999
  config.optimizer.epsilon = 1e-30
  config.optimizer.weight_decay = 0.01
  return config
