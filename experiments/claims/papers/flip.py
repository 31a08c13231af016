"""FLIP beside CLIP with the same vision transformer."""

from experiments.claims.claim import Arm, Claim, Comparison

VIT = {'model.image.patch_dropout': 0.0, 'unmasked_fraction': 0.0}
CLIP = Arm('flip', VIT, 'clip with a vision transformer')

CLAIM = Claim(
  method='FLIP',
  paper='FLIP',
  primary=Comparison(Arm('flip'), CLIP, 'half of the patches, at equal images seen', seeds=3),
  family='objectives',
  notes='Both arms have 64 patches per image and equal batches: that masking pays for larger '
  'batches, or for more images in the same time, is left aside.',
)
