"""cMIM beside A-MIM, which lacks the contrastive term, and by the size of the batch."""

from experiments.claims.claim import Arm, Claim
from experiments.claims.images import compare

METHOD = Arm('cmim')
WITHOUT = {'objective.cmim.contrast': 0.0}
DIVIDED = {'objective.cmim.divide': 'gradient'}
SMALL = {'batch_size': 32, 'total_steps': 1600}

CLAIM = Claim(
  method='cMIM',
  paper=53,
  primary=compare(
    METHOD,
    Arm('cmim', WITHOUT, 'A-MIM'),
    'k-NN without augmentation, equal steps',
  ),
  secondary={
    'augmented': compare(METHOD, Arm('simclr'), 'SimCLR, which augments two views', seeds=1),
    'batch': compare(METHOD, Arm('cmim', SMALL), 'a batch of 128, beside one of 32', seeds=1),
    'batch_simclr': compare(
      Arm('simclr'), Arm('simclr', SMALL), 'SimCLR with a batch of 128, beside one of 32', seeds=1
    ),
    'divided': compare(
      Arm('cmim', DIVIDED),
      Arm('cmim', DIVIDED | WITHOUT),
      'densities whose gradient the width of the latent divides, beside A-MIM',
      seeds=1,
    ),
  },
  family='pixels',
  notes='k-NN sees the features before the linear head of the latent. Batches of 32 and 128 train '
  'on equal images, so that the smaller has four times the steps.',
)
