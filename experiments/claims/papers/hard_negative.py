"""The hard contrastive loss for pairs beside InfoNCE."""

from experiments.claims.claim import Arm, Claim, Comparison

CLAIM = Claim(
  method='hard contrastive loss',
  paper=29,
  primary=Comparison(Arm('hard_negative'), says='64 of 127 negatives, equal steps'),
  family='image-text',
  notes='The question is ours: image and text are the two views, and the temperature is learned. '
  'The paper compares two views of an image over constant temperatures.',
)
