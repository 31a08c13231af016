"""MAE: a masked autoencoder, an image encoder that reconstructs the patches it does not see.

He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, https://arxiv.org/abs/2111.06377

  python launch.py --config=configs/mae.py             the embedded emoji, on two cores
  python launch.py --config=configs/mae.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/mae.py:validation  to choose settings with
  python launch.py --config=configs/mae.py:vit_b16     the paper's recipe, on ImageNet

k-NN and a linear probe evaluate the mean of the tokens of the whole image, as in configs/simclr.py,
`heldout_style/group_linear_probe_accuracy` and the like. The paper finetunes the encoder, as
`--config.evaluation.probes="('linear','finetuned')"` does for a short time.

The encoder has learned positions and no class token; the paper has fixed sines and cosines, and a
class token that the decoder sees too.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'vit_b16')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/mae.py has no variant {variant!r}; use one of {VARIANTS}')
  config = simclr.get_config(variant)
  config.name, config.views = 'mae', 1
  config.objective = ConfigDict({'mae': 1.0})
  if variant == 'vit_b16':
    simclr.make_imagenet(config, variant, epochs=800, batch_size=4096, warmup=40)
    simclr.make_adamw(config, rate=1.5e-4, weight_decay=0.05)
    # A crop of 20% of the area or more
    config.augmentation = ConfigDict({'crop': 0.8, 'flip': 0.5})
    decoder = {'width': 512, 'layers': 8, 'heads': 16, 'scan': True}
  else:
    config.augmentation = ConfigDict({'degrees': 10.0, 'translate': 0.08, 'zoom': 0.3})
    config.augmentation.stretch = 0.15
    config.model.image = ConfigDict(
      {'size': 32, 'patch': 4, 'stem': 'patch', 'width': 128, 'layers': 4, 'heads': 4}
    )
    decoder = {'width': 64, 'layers': 1, 'heads': 4}
  if variant == 'smoke':
    config.model.image.update({'patch': 8, 'width': 32, 'layers': 1, 'heads': 2})
    decoder = {'width': 16, 'layers': 1, 'heads': 2}
  # patch_dropout is the share of the patches that are masked.
  image = {'stem_bias': True, 'pre_norm': False, 'pooling': 'mean', 'patch_dropout': 0.75}
  config.model.image.update(image)
  config.model.name = 'masked_autoencoder'
  config.model.update({'embed': config.model.image.width, 'projector': ()})
  config.model.pixel_decoder = ConfigDict(decoder)
  config.model.loss_predictor = False
  config.optimizer.update({'b2': 0.95, 'weight_decay': 0.05})
  return config
