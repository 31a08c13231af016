"""MV-DHEL and MV-InfoNCE beside NT-Xent of all pairs of views."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

VIEWS = {'views': 5}
PAIRS = Arm('pairwise_nt_xent', VIEWS)

CLAIM = Claim(
  method='MV-DHEL',
  paper=16,
  primary=compare(Arm('mv_dhel', VIEWS), PAIRS, 'five views, k-NN, equal steps', seeds=3),
  secondary={
    'mv_info_nce': compare(Arm('mv_info_nce', VIEWS), PAIRS, 'MV-InfoNCE, five views', seeds=3)
  },
  family='views',
  notes='The paper measures the rank of the space too, and accuracy by a linear probe.',
)
