"""CoCa: an image tower and a text decoder, trained to match and to caption in one pass.

Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022.

  python launch.py --config=configs/coca.py             the embedded emoji, on two cores
  python launch.py --config=configs/coca.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/coca.py:validation  as the default, to choose settings with
  python launch.py --config=configs/coca.py:base --config.data.name=NAME    the paper's, on a TFDS
      data set with the fields `image` and `caption`; also large, and giant, which it calls CoCa
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
  """CLIP's small pair of towers on the embedded emoji, and a decoder like the text tower."""
  config = clip.get_config(variant)
  model = config.model
  del model.image.pooling
  # The paper's cascade of poolers has the image's vector go through the captioner's memory.
  model.pooler = 'parallel'
  model.queries = 16  # of the captioner's memory: as many as patches
  model.pooler_heads = model.image.heads
  model.decoder = ConfigDict({'layers': model.text.layers, 'heads': model.text.heads})
  config.objective = ConfigDict({'info_nce': 1.0, 'captioning': 2.0})
  # At the end of the run, beside the train captions that are nearest to the pictures
  config.evaluation.captions = ConfigDict({'beams': 4, 'length_penalty': 0.0, 'rerank': True})
  return config


def paper(variant: str) -> ConfigDict:
  """The paper's models and hyper-parameters: 500,000 steps at 288 pixels.

  It leaves open D, which is the poolers' width too, and the width of a head. These bring the
  parameters to its 383 million, 787 million and 2.1 billion: a head of the giant's text decoder is
  as wide as one of the smaller models'.
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
  config = clip.get_config('vit_b16')
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
