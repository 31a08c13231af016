"""CLIP-KD beside CLIP, from one teacher."""

from experiments.claims.claim import Claim, Comparison
from experiments.claims.distilled import CLIP, NOTES, prepare, student

CLAIM = Claim(
  method='CLIP-KD',
  paper='CLIP-KD',
  primary=Comparison(student('clip_kd'), CLIP, 'a student with a teacher, beside none', seeds=3),
  family='objectives',
  notes=NOTES,
  prepare=prepare,
)
