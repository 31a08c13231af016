"""CLIP-rocket beside CLIP; and SiamLIP and BYOLIP, with its recipe and without."""

from configs.methods import rocket
from experiments.claims.claim import Arm, Claim, Comparison


def with_recipe(method: str) -> Arm:
  """A method of three views with the augmented texts of configs/methods/rocket.py."""
  edits = rocket.get_config().data.text_augmentation.to_dict()
  fields = {f'data.text_augmentation.{name}': value for name, value in edits.items()}
  return Arm(method, {'texts': 3} | fields, label=f'{method} with augmented texts')


def beside_rocket(method: str) -> Comparison:
  """What a further loss adds to the recipe."""
  says = f'{method} with the recipe, and CLIP-rocket'
  return Comparison(with_recipe(method), Arm('rocket'), says, seeds=3)


def beside_clip(method: str) -> Comparison:
  """What a further loss adds to CLIP, with one view and one text."""
  says = f'{method} without the recipe, and CLIP'
  return Comparison(Arm(method, {'views': 1}), says=says, seeds=3)


LONGER = Arm('clip', {'total_steps': 1200})
CLAIM = Claim(
  method='CLIP-rocket',
  paper=11,
  primary=Comparison(Arm('rocket'), says='equal steps', seeds=3),
  secondary={
    'equal_views': Comparison(
      Arm('rocket'), LONGER, 'CLIP with three times the steps, for equal views seen', seeds=3
    ),
    'siamlip': beside_rocket('siamlip'),
    'siamlip_alone': beside_clip('siamlip'),
    'byolip': beside_rocket('byolip'),
    'byolip_alone': beside_clip('byolip'),
  },
  family='objectives',
  notes='The paper says that further losses help CLIP, and no longer do with the recipe.',
)
