"""Weights by the loss beside equal weights."""

from experiments.claims.claim import Arm, Claim, Comparison

FIELDS = {'objective.reweighted_info_nce.burn_in': 20}  # a twentieth of the steps

CLAIM = Claim(
  method='reweighted InfoNCE',
  paper=36,
  primary=Comparison(Arm('reweighted', FIELDS), says='linupper: easy pairs weigh less'),
  secondary={
    'quadratic': Comparison(
      Arm('reweighted', FIELDS | {'objective.reweighted_info_nce.strategy': 'quadratic'}),
      says='quadratic: pairs of medium loss weigh more',
    )
  },
  family='image-text',
  notes='The claim of the paper is about language models; here it weighs image-text pairs.',
)
