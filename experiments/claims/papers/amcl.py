"""AMCL beside SimCLR."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

CLAIM = Claim(
  method='AMCL',
  paper=33,
  primary=compare(Arm('amcl'), Arm('simclr'), 'on SimCLR, k-NN, equal steps'),
  family='views',
  notes='AMCL has three projectors, and temperatures of 0.1 or more in place of 10⁻⁵.',
)
