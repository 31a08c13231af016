"""ScatSimCLR beside SimCLR."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

CLAIM = Claim(
  method='ScatSimCLR',
  paper=5,
  primary=compare(Arm('scatsimclr'), Arm('simclr'), 'k-NN, equal steps', seeds=3),
  family='views',
  notes='The stem has no trainable parameters before its residual blocks, and the method a third '
  'view, which is rotated. The claim of the paper is about accuracy per trainable parameter.',
)
