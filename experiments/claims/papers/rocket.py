"""CLIP-rocket beside CLIP; and SiamLIP and BYOLIP with its recipe."""

from configs.methods import rocket
from experiments.claims.claim import CLIP, LONGER, Arm, Claim, Comparison


def beside_rocket(method: str) -> Comparison:
  """What a further loss adds to the recipe: three views, and texts augmented as CLIP-rocket's."""
  edits = rocket.get_config().data.text_augmentation.to_dict()
  fields = {f'data.text_augmentation.{name}': value for name, value in edits.items()}
  arm = Arm(method, {'texts': 3} | fields, label=f'{method} with augmented texts')
  return Comparison(arm, Arm('rocket'), f'{method} with the recipe, and CLIP-rocket', seeds=3)


EQUAL_VIEWS = 'CLIP with three times the steps, for equal views seen'
CLAIM = Claim(
  method='CLIP-rocket',
  paper=11,
  primary=Comparison(Arm('rocket'), CLIP, 'equal steps', seeds=3),
  secondary={
    'equal_views': Comparison(Arm('rocket'), LONGER, EQUAL_VIEWS, seeds=3),
    'siamlip': beside_rocket('siamlip'),
    'byolip': beside_rocket('byolip'),
  },
  family='objectives',
  notes='The paper says that further losses help CLIP, and no longer do with the recipe. The '
  'claims of SiamLIP and BYOLIP measure them without augmented texts.',
)
