"""Pairs of texts: contrastive pretraining of one text tower, the name of an emoji against its tags.

Neelakantan et al., Text and Code Embeddings by Contrastive Pre-Training, 2022.

  python launch.py --config=configs/text.py             the embedded emoji, on two cores
  python launch.py --config=configs/text.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/text.py:validation  as the default, to choose settings with

On data of one's own, such as questions and answers, without pictures:

  python launch.py --config=configs/text.py --config.data.name='jsonl:/data/{split}.jsonl'
      --config.data.split=train --config.data.captions=question --config.data.second_captions=answer
      --config.evaluation.splits="('validation',)" --config.evaluation.texts="('question',)"
      --config.evaluation.second_texts="('answer',)"
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = ('default', 'smoke', 'validation')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/text.py has no variant {variant!r}; use one of {VARIANTS}')
  config = clip.emoji()
  config.name = 'text'
  config.variant = variant

  # Concepts of a tenth of Noto's emoji are held out, each once: vendors draw the same names.
  config.data.split = 'train[:9802][vendor=noto,skin_tone=]'
  config.data.captions = 'caption'
  config.data.second_captions = 'join(tags)'  # some of the tags, in any order
  del config.data.size, config.data.crop, config.data.mean, config.data.std
  config.augmentation = ConfigDict()

  config.model = ConfigDict()
  config.model.name = 'text_pair'
  config.model.embed = 128
  config.model.shared = True  # one tower for both sides; False for a tower each
  config.model.scale = 1 / 0.07
  config.model.remat = 'none'
  config.model.attention = 'auto'
  config.model.dtype = 'float32'
  config.model.text = ConfigDict()
  config.model.text.vocabulary = 4096
  config.model.text.length = 32
  config.model.text.width = 128
  config.model.text.layers = 1
  config.model.text.heads = 4

  config.optimizer.update({'name': 'adamw', 'learning_rate': 1e-3})
  config.total_steps = 500
  config.evaluate_every = 250

  config.evaluation.splits = ('train[9802:][vendor=noto,skin_tone=]',)
  # Fields of the first and the second text, all tags joined
  config.evaluation.texts = ('caption',)
  config.evaluation.second_texts = ('join(tags)',)
  config.evaluation.zero_shot = config.evaluation.probes = config.evaluation.pairs = ()
  if variant == 'smoke':
    clip.make_tiny(config)
  elif variant == 'validation':
    config.data.split = 'train[:8686][vendor=noto,skin_tone=]'
    config.evaluation.splits = ('train[8686:9802][vendor=noto,skin_tone=]',)
  return config
