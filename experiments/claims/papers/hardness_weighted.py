"""Hardness-weighted InfoNCE for pairs beside InfoNCE, and beside the debiased one."""

from experiments.claims.claim import CLIP, Arm, Claim, Comparison

METHOD, SEEDS = Arm('hardness_weighted'), 3

CLAIM = Claim(
  method='hardness-weighted InfoNCE',
  paper='HCL',
  primary=Comparison(METHOD, CLIP, 'a prior of 0.01 and β = 1, equal steps', seeds=SEEDS),
  secondary={
    'weights': Comparison(METHOD, Arm('debiased'), 'beside the same prior alone', seeds=SEEDS)
  },
  family='objectives',
  notes='The question is ours: image and text are the two views, and the scale is learned. The '
  'claim of the paper is about two views of an image, at a constant scale.',
)
