"""iSogCLR and SogCLR for two views of an image beside SimCLR."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

SMALL = {'batch_size': 32, 'total_steps': 1600}
BASELINE = Arm('simclr', SMALL)
SOGCLR = Arm('isogclr_images', SMALL | {'objective.isogclr.learning_rate': 0.0})

CLAIM = Claim(
  method='iSogCLR for images',
  paper=26,
  primary=compare(Arm('isogclr_images', SMALL), BASELINE, 'batch of 32, k-NN, equal steps'),
  secondary={'sogclr': compare(SOGCLR, BASELINE, 'SogCLR, of one temperature', seeds=1)},
  family='views',
  notes='The gain of the paper is larger on imbalanced data, which `experiments/views` has.',
)
