"""GRAM beside CLIP."""

from experiments.claims.claim import Arm, Claim, Comparison

_PAIR = {'objective.gram.modalities': ('text', 'image'), 'objective.gram.matching': 0.0}

CLAIM = Claim(
  method='GRAM',
  paper=64,
  primary=Comparison(Arm('gram'), says='equal steps', seeds=3),
  secondary={
    'contrast': Comparison(
      Arm('gram', {'objective.gram.matching': 0.0}), says='without matching', seeds=3
    ),
    'pair': Comparison(
      Arm('gram', _PAIR, 'gram of image and name'),
      says='image and English name alone: the sine in place of the cosine',
      seeds=3,
    ),
  },
  family='objectives',
  notes=(
    'GRAM reads the Chinese name and the tags too; recall is by the cosine of image and English '
    'name. Both start from random weights, the authors from pretrained encoders.'
  ),
)
