"""GroCo beside SimCLR."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

CLAIM = Claim(
  method='GroCo',
  paper=44,
  primary=compare(Arm('groco'), Arm('simclr'), 'two views, k-NN, equal steps'),
  family='views',
  notes='Each has the projector of its config, GroCo with batch norm. The authors sort local '
  'views too.',
)
