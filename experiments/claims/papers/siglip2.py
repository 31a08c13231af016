"""SigLIP 2's self-supervised terms beside SigLIP with the same vision transformer."""

from experiments.claims.claim import Arm, Claim, Comparison

TERMS = ('self_distillation', 'masked_prediction')
SIGLIP = Arm(
  'siglip2', {f'objective.{term}.weight': 0.0 for term in TERMS}, 'siglip, a vision transformer'
)

CLAIM = Claim(
  method='SigLIP 2',
  paper='SigLIP 2',
  primary=Comparison(
    Arm('siglip2'), SIGLIP, 'self-distillation and masked prediction, equal steps', seeds=3
  ),
  family='objectives',
  notes='The baseline gives both terms the weight 0, which leaves SigLIP. The method has them '
  'from the start, with the weights of the smallest model; the view of the text is augmented like '
  "SigLIP's. The paper evaluates them beside its decoder.",
)
