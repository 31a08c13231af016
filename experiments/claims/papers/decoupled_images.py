"""DCL and DCLW for two views of an image, at small and large batches."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

SMALL = {'batch_size': 32, 'total_steps': 1600}
BASELINE = Arm('simclr', SMALL)
DCLW = Arm('decoupled_images', SMALL | {'objective.decoupled.sigma': 0.5})

CLAIM = Claim(
  method='DCL',
  paper=31,
  primary=compare(Arm('decoupled_images', SMALL), BASELINE, 'batch of 32, k-NN, equal steps'),
  secondary={
    'weighted': compare(DCLW, BASELINE, 'DCLW, batch of 32', seeds=1),
    'batch_128': compare(Arm('decoupled_images'), Arm('simclr'), 'batch of 128', seeds=1),
  },
  family='views',
  notes='The gain of the paper is largest at small batches; `experiments/views` has six of them.',
)
