"""SuSana Distancia beside a prototypical network."""

from experiments.claims.claim import Arm, Claim, Comparison

_METRICS = ('5_way_1_shot_accuracy', '5_way_5_shot_accuracy')
_BASELINE = Arm('susana', {'objective': ('cross_entropy',)}, 'prototypical network')

# As configs/methods/susana.py:scripts
_SCRIPTS = {
  'data.name': 'scripts',
  'data.split': 'train',
  'data.labels': 'letter',
  'data.parted_by': 'script',
  'total_steps': 500,
  'evaluation.way': 20,
}


def _beside(*terms: str) -> Comparison:
  """A term beside the cross entropy, with one seed."""
  name = ' and '.join(term.replace('_', ' ') for term in terms)
  arm = Arm('susana', {'objective': ('cross_entropy', *terms)}, f'prototypical network and {name}')
  return Comparison(arm, _BASELINE, f'{name} alone', metrics=_METRICS, seeds=1)


CLAIM = Claim(
  method='SuSana Distancia',
  paper=14,
  primary=Comparison(
    Arm('susana'),
    _BASELINE,
    'cross entropy with and without ICNN and Proto-Triplet, equal episodes',
    metrics=_METRICS,
  ),
  secondary={
    'icnn': _beside('icnn'),
    'proto_triplet': _beside('proto_triplet'),
    'scripts': Comparison(
      Arm('susana', _SCRIPTS, 'susana, scripts'),
      Arm('susana', _SCRIPTS | _BASELINE.fields, 'prototypical network, scripts'),
      'letters of scripts that are never trained on, 20-way',
      metrics=tuple(metric.replace('5_way', '20_way') for metric in _METRICS),
      seeds=1,
    ),
  },
  family='labels',
  notes=(
    'The mean of the accuracies of 5-way episodes of one and of five shots, of a third of the '
    'subgroups, which are never trained on. In the arms on scripts, letters of the package '
    'fonts-noto-core, all drawings of a letter are augmentations of one, unlike those of Omniglot. '
    'The authors train a ResNet on miniImageNet.'
  ),
)
