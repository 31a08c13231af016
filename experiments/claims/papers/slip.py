"""SLIP beside CLIP."""

from experiments.claims.claim import Arm, Claim, Comparison

CLAIM = Claim(
  method='SLIP',
  paper='SLIP',
  primary=Comparison(Arm('slip'), says='equal steps', seeds=3),
  secondary={
    'equal_views': Comparison(
      Arm('slip'),
      Arm('clip', {'total_steps': 1200}),
      'CLIP with three times the steps, for equal views seen',
      seeds=3,
    )
  },
  family='image-text',
)
