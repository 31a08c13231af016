"""BYOLIP beside CLIP."""

from experiments.claims.claim import Arm, Claim, Comparison

CLAIM = Claim(
  method='BYOLIP',
  paper=11,
  primary=Comparison(Arm('byolip'), says='equal steps', seeds=3),
  secondary={
    'equal_views': Comparison(
      Arm('byolip'),
      Arm('clip', {'total_steps': 1200}),
      'CLIP with three times the steps, for equal views seen',
      seeds=3,
    )
  },
  family='image-text',
)
