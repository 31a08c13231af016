"""SiamLIP beside CLIP."""

from experiments.claims.claim import Arm, Claim, Comparison

CLAIM = Claim(
  method='SiamLIP',
  paper=11,
  primary=Comparison(Arm('siamlip'), says='equal steps', seeds=3),
  secondary={
    'equal_views': Comparison(
      Arm('siamlip'),
      Arm('clip', {'total_steps': 1200}),
      'CLIP with three times the steps, for equal views seen',
      seeds=3,
    )
  },
  family='image-text',
)
