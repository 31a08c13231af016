"""NNCLR beside SimCLR, with and without the positive in the denominator."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

METHOD = Arm('nnclr')
DECOUPLED = Arm('nnclr', {'objective.nnclr.decoupled': True})

CLAIM = Claim(
  method='NNCLR',
  paper='NNCLR',
  primary=compare(METHOD, Arm('simclr'), 'k-NN, equal steps'),
  secondary={'decoupled': compare(DECOUPLED, METHOD, 'with DCL, beside without it', seeds=1)},
  family='views',
  notes='NNCLR has a projector with batch norm, a predictor, and a queue of 1,024.',
)
