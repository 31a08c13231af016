"""HPCR beside experience replay, on a stream of emoji groups."""

from experiments.claims.claim import Arm, Claim, Comparison

_FIELDS = {
  'loss.min_batch_for_pairs': 0,
  'loss.low': 1.0,
  'loss.high': 1.0,
  'loss.logits': 0.0,
  'loss.structure': 0.0,
}


def _without(label: str, *kept: str, **fields) -> Arm:
  """HPCR without its components, but for those fields of the loss that are kept."""
  given = {path: value for path, value in _FIELDS.items() if path not in kept}
  return Arm('hpcr', given | {f'loss.{name}': value for name, value in fields.items()}, label)


HPCR = Arm('hpcr', {}, 'HPCR')
REPLAY = _without('experience replay', name='cross_entropy')
PCR = _without('PCR')


def _compare(method: Arm, baseline: Arm, says: str, seeds: int = 1) -> Comparison:
  return Comparison(method, baseline, says, metrics=('accuracy',), seeds=seeds)


def _by(metric: str, says: str, **options) -> Comparison:
  """The runs of the primary comparison, by another metric."""
  return Comparison(HPCR, REPLAY, says, metrics=(metric,), **options)


CLAIM = Claim(
  method='HPCR',
  paper=17,
  primary=_compare(HPCR, REPLAY, 'final accuracy, one pass, equal buffers', seeds=5),
  secondary={
    'tasks': _by('mean_task_accuracy', 'final accuracy, each task equally'),
    'forgetting': _by('forgetting', 'forgetting', lower_is_better=True),
    'supervised': _compare(
      HPCR, _without('supervised contrastive replay', name='supervised'), 'supervised replay'
    ),
    'pcr': _compare(HPCR, PCR, 'all components, against PCR'),
    'pairs': _compare(
      _without('PCR with pairs', 'loss.min_batch_for_pairs'), PCR, 'pairs of examples alone'
    ),
    'temperature': _compare(
      _without('PCR with a periodic temperature', 'loss.low', 'loss.high'),
      PCR,
      'periodic temperature alone',
    ),
    'distillation': _compare(
      _without('PCR with distillation', 'loss.logits', 'loss.structure'), PCR, 'distillation alone'
    ),
  },
  family='labels',
  notes='The same cosine classifier and augmentation for all arms; supervised replay classifies '
  'by the nearest mean of the classes in the buffer. The paper has 100 classes in ten tasks, and '
  'SGD. AdamW, as here, undoes most of a factor on the loss such as the periodic temperature.',
)
