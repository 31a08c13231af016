"""MobileCLIP's distillation of the softmax, beside CLIP, from one teacher."""

from experiments.claims.claim import Claim, Comparison
from experiments.claims.distilled import CLIP, NOTES, prepare, student

DISTILL = student('distill')

CLAIM = Claim(
  method='Distillation of the softmax',
  paper='MobileCLIP',
  primary=Comparison(DISTILL, CLIP, 'a student with a teacher, beside one without', seeds=3),
  secondary={
    'contrastive': Comparison(
      DISTILL,
      student('distill', contrastive=0.25, logits=0.75),
      'distillation alone, beside a quarter of CLIP',
      seeds=3,
    )
  },
  family='objectives',
  notes=NOTES,
  prepare=prepare,
)
