"""CTVIS beside training with one reference frame."""

from experiments.claims.claim import Arm, Claim, Comparison

_METRICS = ('association_accuracy',)
_METHOD = Arm('ctvis')
_BASELINE = Arm('ctvis', {'reference': 'frame'}, 'one reference frame')
_LAST = Arm('ctvis', {'momentum': 0.0}, 'ctvis without momentum')

CLAIM = Claim(
  method='CTVIS',
  paper=83,
  primary=Comparison(
    _METHOD,
    _BASELINE,
    'a memory bank beside one reference frame, equal videos',
    metrics=_METRICS,
    seeds=3,
  ),
  secondary={
    'momentum': Comparison(
      _METHOD, _LAST, 'with and without momentum embeddings', metrics=_METRICS, seeds=1
    )
  },
  family='pixels',
  notes=(
    'Ten emoji per video move over each other for ten frames, each in a random style; those of the '
    'test are never trained on. Association by chance is right in one of ten. The authors report '
    'the precision of video instance segmentation.'
  ),
)
