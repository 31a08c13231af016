"""The hard contrastive loss of two views of an image beside InfoNCE at its temperature."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

CLAIM = Claim(
  method='hard loss of views',
  paper=29,
  primary=compare(
    Arm('hard_contrastive'),
    Arm('simclr', {'objective.nt_xent.scale': 5.0}),
    'a tenth of the negatives, a temperature of 0.2, k-NN, equal steps',
  ),
  family='views',
  notes='The fraction of the paper is unknown to us. `experiments/views` varies the temperature.',
)
