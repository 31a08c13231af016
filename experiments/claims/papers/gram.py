"""GRAM beside CLIP."""

from experiments.claims.claim import CLIP, Arm, Claim, Comparison

CLAIM = Claim(
  method='GRAM',
  paper=64,
  primary=Comparison(Arm('gram'), CLIP, 'equal steps', seeds=3),
  family='objectives',
  notes=(
    'GRAM reads the Chinese name and the tags too; recall is by the cosine of image and English '
    'name. Both start from random weights, the authors from pretrained encoders.'
  ),
)
