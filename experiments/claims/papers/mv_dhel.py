"""MV-DHEL and MV-InfoNCE beside NT-Xent of all pairs of views."""

import dataclasses

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

VIEWS = {'views': 5}
METHOD, PAIRS = Arm('mv_dhel', VIEWS), Arm('pairwise_nt_xent', VIEWS)
RANK = ('heldout_style/effective_rank',)

PRIMARY = compare(METHOD, PAIRS, 'five views, k-NN, equal steps', seeds=3)
CLAIM = Claim(
  method='MV-DHEL',
  paper=16,
  primary=PRIMARY,
  secondary={
    'rank': dataclasses.replace(PRIMARY, says='effective rank', metrics=RANK, delta=1.0),
    'mv_info_nce': compare(Arm('mv_info_nce', VIEWS), PAIRS, 'MV-InfoNCE, five views', seeds=1),
  },
  family='views',
  notes='The paper has a linear probe in place of k-NN. `experiments/views` has 2 to 8 views.',
)
