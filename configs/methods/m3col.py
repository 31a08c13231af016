"""M3CoL: emoji subgroups from image and tags, with mixup between the modalities.

Kumar et al., Harnessing Shared Relations via Multimodal Mixup Contrastive Learning for Multimodal
Classification, 2024, https://arxiv.org/abs/2409.17777

  python launch.py --config=configs/methods/m3col.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/m3col.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/m3col.py:validation  to choose settings with

The text of an emoji is its tags. `train/m3col/fused_accuracy` is that of the classifier of both in
training. In the evaluation, a linear probe is fitted to the embeddings of both. An emoji has the
same tags in every style, so the held-out style tests the images; the claim holds out emoji too.
The authors fine-tune BERT and a ViT with Adam.
"""

from ml_collections import ConfigDict

from configs import clip

VARIANTS = clip.SHARED


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = clip.for_method('m3col', variant)
  config.data.captions = 'join(tags)'
  config.data.labels, config.data.classes = 'subgroup', 98
  config.model.text.length = 32  # of the tags
  mixup = {'p': 0.5, 'alpha': 0.15, 'scale': 10.0}  # the authors', as are the others
  soft = {'switch': 0.33, 'soft_scale': 8.0}
  config.objective = ConfigDict({'m3col': {'weight': 1.0, 'contrastive': 0.1, **mixup, **soft}})
  config.evaluation.texts = ('join(tags)',)
  config.evaluation.zero_shot = ('subgroup',)
  config.evaluation.pairs = ()
  config.evaluation.probe_split = 'train[vendor=noto,skin_tone=,group!=flags]'
  if variant != 'smoke':
    config.evaluation.probes = ('linear', 'fused_linear')
  return config
