"""ScatSimCLR beside SimCLR."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

METHOD = Arm('scatsimclr', {'model.image.stem_angles': 2, 'model.image.stem_blocks': (1,)})

CLAIM = Claim(
  method='ScatSimCLR',
  paper=5,
  primary=compare(METHOD, Arm('simclr'), 'k-NN, equal steps', seeds=3),
  family='views',
  notes='The stem has no trainable parameters before its residual block; it has two angles and one '
  'block for the sake of time, where the paper has 16 and up to 30. The method has a third view, '
  'which is rotated. The claim of the paper is about accuracy per trainable parameter.',
)
