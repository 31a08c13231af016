"""Debiased InfoNCE for pairs beside InfoNCE."""

from experiments.claims.claim import CLIP, Arm, Claim, Comparison

CLAIM = Claim(
  method='debiased InfoNCE',
  paper='Debiased contrastive loss',
  primary=Comparison(Arm('debiased'), CLIP, 'a prior of 0.01, equal steps', seeds=3),
  family='objectives',
  notes='The question is ours: image and text are the two views, and the scale is learned. The '
  'claim of the paper is about two views of an image, in ten classes, at a constant scale. At the '
  'length of the default run it reverses, see experiments/confirmation.',
)
