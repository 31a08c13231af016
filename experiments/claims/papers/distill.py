"""MobileCLIP's distillation of the softmax, beside CLIP, from one teacher."""

from experiments.claims.claim import Claim, Comparison
from experiments.claims.distilled import CLIP, NOTES, prepare, student

CLAIM = Claim(
  method='Distillation of the softmax',
  paper='MobileCLIP',
  primary=Comparison(
    student('distill'), CLIP, 'a student with a teacher, beside one without', seeds=3
  ),
  family='objectives',
  notes=NOTES,
  prepare=prepare,
)
