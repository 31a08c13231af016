"""CACR beside NT-Xent of all pairs of its four views."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

CLAIM = Claim(
  method='CACR',
  paper=59,
  primary=compare(Arm('cacr'), Arm('pairwise_nt_xent'), 'four views, k-NN, equal steps', seeds=3),
  family='views',
  notes='The authors compare with SimCLR of two views, and of four.',
)
