"""RankMixup beside cross-entropy and mixup, by their calibration."""

from configs.methods import rankmixup
from experiments.claims.claim import Arm, Claim, Comparison

SPLITS = rankmixup.get_config().evaluation.splits
ERROR = 'expected_calibration_error'
ARMS = {
  name: Arm('rankmixup', {'loss.name': name}, label)
  for name, label in (
    ('cross_entropy', 'classifier, cross-entropy'),
    ('mixup', 'classifier, mixup'),
    ('mrl', 'classifier, MRL'),
    ('m_ndcg', 'classifier, M-NDCG'),
  )
}


def compare(
  method: str, baseline: str, says: str, split: str = SPLITS[0], seeds: int = 1
) -> Comparison:
  """Two losses by the expected calibration error of a split."""
  metrics, arms = (f'{split}/{ERROR}',), (ARMS[method], ARMS[baseline])
  return Comparison(*arms, says, metrics=metrics, lower_is_better=True, seeds=seeds)


CLAIM = Claim(
  method='RankMixup',
  paper=37,
  primary=compare(
    'm_ndcg', 'cross_entropy', 'calibration error on an unseen style, equal steps', seeds=5
  ),
  secondary={
    'new_emoji': compare(
      'm_ndcg', 'cross_entropy', 'on unseen emoji of the styles trained on', SPLITS[1], seeds=5
    ),
    'accuracy': Comparison(
      ARMS['m_ndcg'],
      ARMS['cross_entropy'],
      'accuracy on the unseen style',
      metrics=(f'{SPLITS[0]}/accuracy',),
    ),
    'mixup': compare('m_ndcg', 'mixup', 'M-NDCG and mixup'),
    'mrl': compare('mrl', 'mixup', 'MRL and mixup'),
  },
  family='labels',
  notes=(
    'A small ResNet tells eight groups of emoji apart; the error is the ECE in 15 bins. M-NDCG '
    'encodes four images per example and step, MRL two, the others one.'
  ),
)
