"""SuSana Distancia beside a prototypical network."""

from experiments.claims.claim import Arm, Claim, Comparison

_METRICS = ('5_way_1_shot_accuracy', '5_way_5_shot_accuracy')
_BASELINE = Arm('susana', {'objective': ('cross_entropy',)}, 'prototypical network')


def _beside(*terms: str) -> Comparison:
  """A term beside the cross entropy, with two seeds."""
  name = ' and '.join(term.replace('_', ' ') for term in terms)
  arm = Arm('susana', {'objective': ('cross_entropy', *terms)}, f'prototypical network and {name}')
  return Comparison(arm, _BASELINE, f'{name} alone', metrics=_METRICS, seeds=2)


CLAIM = Claim(
  method='SuSana Distancia',
  paper=14,
  primary=Comparison(
    Arm('susana'),
    _BASELINE,
    'cross entropy with and without ICNN and Proto-Triplet, equal episodes',
    metrics=_METRICS,
  ),
  secondary={'icnn': _beside('icnn'), 'proto_triplet': _beside('proto_triplet')},
  family='labels',
  notes=(
    'The mean of the accuracies of 5-way episodes of one and of five shots, of a third of the '
    'subgroups, which are never trained on. The authors train a ResNet on miniImageNet.'
  ),
)
