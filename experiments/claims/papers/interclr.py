"""InterCLR beside MoCo, and without each of its parts."""

from typing import Any

from experiments.claims.claim import Arm, Claim, Comparison
from experiments.claims.images import compare

METHOD = Arm('interclr')


def without(says: str, **options: Any) -> Comparison:
  """InterCLR beside InterCLR with other options."""
  fields = {f'objective.interclr.{name}': value for name, value in options.items()}
  return compare(METHOD, Arm('interclr', fields), says, seeds=1)


CLAIM = Claim(
  method='InterCLR',
  paper=39,
  primary=compare(METHOD, Arm('moco_images'), 'k-NN, equal steps'),
  secondary={
    'labels': without('online labels, beside k-means every 100 steps', cluster_every=100),
    'negatives': without('negatives of the nearest, beside any', nearest=0),
    'margin': without('a relaxed margin, beside none', margin=0.0),
  },
  family='views',
)
