"""SwALIP beside CLIP and CLIP-rocket."""

from experiments.claims.claim import CLIP, Arm, Claim, Comparison

CLAIM = Claim(
  method='SwALIP',
  paper=11,
  primary=Comparison(Arm('swalip'), CLIP, 'equal steps', seeds=3),
  secondary={
    'recipe': Comparison(Arm('swalip'), Arm('rocket'), 'SwALIP and CLIP-rocket', seeds=3),
  },
  family='objectives',
  notes='Without the recipe there is no other view to predict, and SwALIP is CLIP.',
)
