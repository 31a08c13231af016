"""CoCa beside CLIP with the same image tower."""

from experiments.claims.claim import Arm, Claim, Comparison

CLAIM = Claim(
  method='CoCa',
  paper=12,
  primary=Comparison(Arm('coca'), says='equal steps'),
  family='image-text',
  notes='The comparison is ours: the abstract states accuracies, and no difference from CLIP. CoCa '
  'has a text decoder besides.',
)
