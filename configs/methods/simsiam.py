"""SimSiam: an image encoder whose views predict each other, without negatives; no texts.

Chen and He, Exploring Simple Siamese Representation Learning, 2021,
https://arxiv.org/abs/2011.10566

  python launch.py --config=configs/methods/simsiam.py         the embedded emoji, on two cores
  python launch.py --config=configs/methods/simsiam.py:smoke   two tiny steps, a minute in all
  python launch.py --config=configs/methods/simsiam.py:rn50    the paper's recipe, on ImageNet
      also with validation, to choose settings with

k-NN evaluates the features before the projector, as in configs/simclr.py. `train/simsiam/spread`
falls to 0 in a collapse. More views than two predict each other in pairs.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'rn50')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('simsiam', variant, VARIANTS, projector=False)
  config.objective = ConfigDict({'simsiam': {'weight': 0.5}})  # the paper's scale of the loss
  if variant == 'rn50':
    simclr.make_imagenet(config, variant, epochs=100, batch_size=512, warmup=0)
    fields = {'name': 'sgd', 'learning_rate': 0.1, 'weight_decay': 1e-4}  # the rate 0.05 B / 256
    config.optimizer.update(fields)
    jitter = {'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.4, 'hue': 0.1, 'crop': 0.8}
    config.augmentation.update(jitter)
  else:
    # The paper's: 2048, 2048 and 512, for features of width 2048
    sizes = {'hidden': 256, 'outputs': 256, 'predictor_hidden': 64}
    config.objective.simsiam.update(sizes)
  return config
