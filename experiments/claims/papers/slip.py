"""SLIP beside CLIP."""

from experiments.claims.claim import Arm, Claim, with_three_views

CLAIM = Claim(
  method='SLIP',
  paper='SLIP',
  family='image-text',
  notes='At the length of the default run the difference is within the noise, see '
  'experiments/confirmation.',
  **with_three_views('slip', clip=Arm(), longer=Arm('clip', {'total_steps': 1200})),
)
