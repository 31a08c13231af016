"""CoCa with cMIM: a latent of the image, from which a decoder of its own reads the caption.

Livne, Contrastive MIM: A Contrastive Mutual Information Framework for Unified Generative and
Discriminative Representation Learning, 2025, https://arxiv.org/abs/2502.19642

  python launch.py --config=configs/methods/cmim_captions.py             the embedded emoji
  python launch.py --config=configs/methods/cmim_captions.py:smoke       two tiny steps
  python launch.py --config=configs/methods/cmim_captions.py:validation  to choose settings with
  python launch.py --config=configs/methods/cmim_captions.py:kermt       the authors' sizes

CoCa's captioner sees all tokens of its memory, cMIM's decoder the sampled latent alone. With
`--config.objective.cmim.encode=text` the latent is that of the caption, which makes an
autoencoder of texts.
"""

from ml_collections import ConfigDict

from configs import clip, coca

VARIANTS = (*clip.SHARED, 'kermt')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    message = f'configs/methods/cmim_captions.py has no variant {variant!r}; use one of {VARIANTS}'
    raise ValueError(message)
  config = coca.get_config('default' if variant == 'kermt' else variant)
  config.name, config.variant = 'cmim_captions', variant
  width = 512 if variant == 'kermt' else config.model.text.width
  config.objective.cmim = {
    'weight': 1.0,
    'encode': 'image',  # or 'text'
    'decode': 'tokens',
    'latent': width,
    'contrast': 1.0,
    'reconstruction': 1.0,
    'scale': 10.0,  # the inverse of the temperature, 0.1
    'divide': 'none',  # 'gradient' or 'value' divides the densities by the latent's width
    'width': width,
    'layers': 3 if variant == 'kermt' else 1,
    'attention_heads': 8 if variant == 'kermt' else 4,
  }
  return config
