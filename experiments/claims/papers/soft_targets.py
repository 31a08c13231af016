"""InfoNCE with soft targets by the similarity of captions beside InfoNCE."""

from experiments.claims.claim import CLIP, Arm, Claim, Comparison

CLAIM = Claim(
  method='soft targets',
  paper='Soft CLIP loss',
  primary=Comparison(Arm('soft_targets'), CLIP, 'α = 0.4, equal steps', seeds=3),
  family='objectives',
  notes='The question is ours: the targets are the similarities of captions by the text tower in '
  'training. Those of the paper are the similarities of images by a frozen CLIP.',
)
