"""GroCo for an image encoder: a sorting network ranks views of an image above others; no texts.

Shvetsova et al., Learning by Sorting: Self-supervised Learning with Group Ordering Constraints,
2023, https://arxiv.org/abs/2301.02009

  python launch.py --config=configs/methods/groco.py             the embedded emoji, on two cores
  python launch.py --config=configs/methods/groco.py:smoke       two tiny steps, a minute in all
  python launch.py --config=configs/methods/groco.py:validation  to choose settings with
  python launch.py --config=configs/methods/groco.py:rn50        the paper's recipe, on ImageNet

`--config.views` is the number of views. k-NN evaluates the features before the projector, as in
configs/simclr.py. The paper's views are DINO's, of which one is solarized; `rn50` has SimCLR's.
"""

from ml_collections import ConfigDict

from configs import clip, simclr

VARIANTS = (*clip.SHARED, 'rn50')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  config = simclr.for_method('groco', variant, VARIANTS, projector=False)
  if variant == 'rn50':
    simclr.make_imagenet(config, variant, epochs=100, batch_size=1024, warmup=1)
    fields = {'name': 'sgd', 'learning_rate': 3.0, 'weight_decay': 1e-6}  # 0.75 per 256 images
    config.optimizer.update(fields)
  config.objective = ConfigDict(
    {
      'groco': {
        'weight': 1.0,
        'k': 10,  # negatives per view; the paper's, as is the next
        'steepness': 1.0,
      }
    }
  )
  if variant != 'rn50':
    # The paper's: 2048 and 2048
    config.objective.groco.update({'hidden': 256, 'outputs': 256})
  return config
