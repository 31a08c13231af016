"""The hard contrastive loss of two views of an image beside InfoNCE at its temperature."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

BASELINE = Arm('simclr', {'objective.nt_xent.scale': 5.0})
TENTH = Arm('hard_contrastive', {'objective.hard_contrastive.hard_fraction': 0.1})

CLAIM = Claim(
  method='hard loss of views',
  paper=29,
  primary=compare(
    Arm('hard_contrastive'),
    BASELINE,
    'a quarter of the negatives, a temperature of 0.2, k-NN, equal steps',
  ),
  secondary={'tenth': compare(TENTH, BASELINE, 'a tenth of the negatives', seeds=1)},
  family='views',
  notes='The fraction of the paper is unknown to us. With a tenth of the negatives all pictures '
  'get one embedding. `experiments/views` varies the temperature.',
)
