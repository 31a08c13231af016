"""iSogCLR and SogCLR beside CLIP."""

from experiments.claims.claim import Arm, Claim, Comparison

CLAIM = Claim(
  method='iSogCLR',
  paper=26,
  primary=Comparison(Arm('isogclr'), says='equal steps'),
  secondary={'sogclr': Comparison(Arm('sogclr'), says='SogCLR, of one constant temperature')},
  family='image-text',
)
