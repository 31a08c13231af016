"""CUAXU beside CLIP: retrieval and the gap between image and text."""

from experiments.claims.claim import Arm, Claim, Comparison


def gap(metric: str, says: str) -> Comparison:
  """How far apart the images and the texts of the held-out split lie."""
  metrics = (f'heldout_style/{metric}',)
  return Comparison(Arm('cuaxu'), says=says, metrics=metrics, lower_is_better=True)


CLAIM = Claim(
  method='CUAXU',
  paper=40,
  primary=Comparison(Arm('cuaxu'), says='recall, equal steps'),
  secondary={
    'centroids': gap('modality_gap', 'distance of the centroids'),
    'separability': gap('separability', 'accuracy of a linear classifier of image and text'),
  },
  family='image-text',
  notes='The paper fine-tunes CLIP at a constant temperature; here both arms train from the start '
  'with a learned one.',
)
