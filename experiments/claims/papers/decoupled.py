"""Decoupled InfoNCE for pairs, at small and large batches."""

from experiments.claims.claim import Arm, Claim, Comparison


def at(batch_size: int) -> Comparison:
  """Both losses at a batch size, at equal images seen and with a learned scale."""
  fields = {'batch_size': batch_size, 'total_steps': 51_200 // batch_size}
  fields = {} if batch_size == 128 else fields  # the recipe's own
  says = f'batch of {batch_size}, equal images seen'
  return Comparison(Arm('decoupled', fields), Arm('clip', fields), says)


CLAIM = Claim(
  method='decoupled',
  paper=31,
  primary=at(32),
  secondary={f'batch_{size}': at(size) for size in (128, 512)},
  family='image-text',
  notes='The question is ours: image and text are the two views, and the scale is learned. The '
  'claim of the paper is about two views of an image, and its gain is largest at small batches.',
)
