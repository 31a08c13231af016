"""CUAXU and CUA beside CLIP: retrieval, the gap between image and text, zero-shot, arithmetic."""

from collections.abc import Mapping
from typing import Any

from experiments.claims.claim import Arm, Claim, Comparison

ZERO_SHOT = ('heldout_style/zero_shot_group_accuracy@1',)
# Words that differ are roles and other kinds of an unseen style; and roles and skin tones, in
# combinations that training never saw.
ROLES = ('heldout_style/arithmetic_swap_recall@1',)
TONES = ('heldout_composition/arithmetic_swap_recall@1',)
EVALUATED = {
  'evaluation.arithmetic': ('vendor',),
  'evaluation.splits': ('heldout_style', 'heldout_composition'),
}
CUA = {'objective.cross_uniformity': 0.0}
FIXED = {'model.scale': 100.0, 'optimizer.rates': (('log_scale', 0.0),)}


def arm(method: str, label: str = '', fields: Mapping[str, Any] | None = None) -> Arm:
  """An arm whose arithmetic is evaluated."""
  return Arm(method, EVALUATED | dict(fields or {}), f'{label or method}, with arithmetic')


def gap(metric: str, says: str) -> Comparison:
  """How far apart the images and the texts of the held-out split lie."""
  metrics = (f'heldout_style/{metric}',)
  return Comparison(Arm('cuaxu'), says=says, metrics=metrics, lower_is_better=True)


def later(method: Arm, says: str, baseline: Arm | None = None, **options: Any) -> Comparison:
  """A comparison of arms whose arithmetic is evaluated."""
  return Comparison(method, baseline or arm('clip'), says, seeds=3, **options)


CLAIM = Claim(
  method='CUAXU',
  paper=40,
  primary=Comparison(Arm('cuaxu'), says='recall, equal steps'),
  secondary={
    'centroids': gap('modality_gap', 'distance of the centroids'),
    'separability': gap('separability', 'accuracy of a linear classifier of image and text'),
    'zero_shot': Comparison(Arm('cuaxu'), says='zero-shot accuracy', metrics=ZERO_SHOT),
    'roles': later(arm('cuaxu'), 'image − word + word, in an unseen style', metrics=ROLES),
    'tones': later(arm('cuaxu'), 'image − word + word, unseen roles and tones', metrics=TONES),
    'cua': later(arm('cuaxu', 'cua', CUA), 'CUA, recall'),
    'cua_roles': later(arm('cuaxu', 'cua', CUA), 'CUA, image − word + word', metrics=ROLES),
    'fixed': later(
      arm('cuaxu', 'cuaxu at temperature 0.01', FIXED),
      'recall at the constant temperature 0.01, of both',
      arm('clip', 'clip at temperature 0.01', FIXED),
    ),
  },
  family='image-text',
  notes='The paper fine-tunes CLIP at a constant temperature; here both arms train from the start '
  'with a learned one, unless a comparison says otherwise.',
)
