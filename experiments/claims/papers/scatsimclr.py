"""ScatSimCLR beside SimCLR."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

# A convolution stem with another block, 208,000 parameters beside the method's 110,000
LARGER = Arm('simclr', {'model.image.stem_blocks': (0, 1, 2)})
METHOD = Arm('scatsimclr', {'model.image.stem_angles': 2, 'model.image.stem_blocks': (1,)})

CLAIM = Claim(
  method='ScatSimCLR',
  paper=5,
  primary=compare(METHOD, Arm('simclr'), 'k-NN, equal steps', seeds=3),
  secondary={
    'parameters': compare(METHOD, LARGER, 'SimCLR of twice the parameters', seeds=1),
    'views': compare(
      METHOD, Arm('pairwise_nt_xent', {'views': 5}), 'SimCLR of five views', seeds=3
    ),
  },
  family='views',
  notes='The stem has no trainable parameters before its residual block; it has two angles and one '
  'block for the sake of time, where the paper has 16 and up to 30. The method has a third view, '
  'which is rotated. The claim of the paper is about accuracy by trainable parameters and views.',
)
