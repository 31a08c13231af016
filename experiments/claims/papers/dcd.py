"""DCD beside CLIP, from one teacher."""

from experiments.claims.claim import Claim, Comparison
from experiments.claims.distilled import CLIP, NOTES, prepare, student

CLAIM = Claim(
  method='DCD',
  paper=48,
  primary=Comparison(
    student('dynamic_distillation'), CLIP, 'beside CLIP alone, without a teacher', seeds=3
  ),
  family='objectives',
  notes=f'{NOTES} The paper measures how much faster a small ranker is, at the quality of a large '
  'one; here what the loss adds to a small two-tower model.',
  prepare=prepare,
)
