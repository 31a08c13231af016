"""The hard contrastive loss of two views of an image beside InfoNCE at its temperature."""

from experiments.claims.claim import Arm, Claim, Comparison
from experiments.claims.images import compare

BASELINE = Arm('simclr', {'objective.nt_xent.scale': 5.0})


def fraction(share: float, says: str, seeds: int) -> Comparison:
  """The hard loss of a share of the negatives beside InfoNCE."""
  arm = Arm('hard_contrastive', {'objective.hard_contrastive.hard_fraction': share})
  return compare(arm, BASELINE, says, seeds=seeds)


CLAIM = Claim(
  method='hard loss of views',
  paper=29,
  primary=compare(
    Arm('hard_contrastive'),
    BASELINE,
    'half of the negatives, a temperature of 0.2, k-NN, equal steps',
  ),
  secondary={
    'quarter': fraction(0.25, 'a quarter of the negatives', 2),
    'tenth': fraction(0.1, 'a tenth of the negatives', 1),
  },
  family='views',
  notes='The fraction of the paper is unknown to us. With a tenth of the negatives, and in one of '
  'two runs with a quarter, all pictures get one embedding. `experiments/views` varies the '
  'temperature.',
)
