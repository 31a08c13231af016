"""CUAXU and CUA beside CLIP: retrieval, the gap between image and text, zero-shot, arithmetic."""

from experiments.claims.claim import CLIP, EVALUATED, RECALL, Arm, Claim, Comparison

ZERO_SHOT = ('heldout_style/zero_shot_group_accuracy@1',)
# Words that differ are roles and other kinds of an unseen style; and roles and skin tones, in
# combinations that training never saw.
ROLES = ('heldout_style/arithmetic_swap_recall@1',)
TONES = ('heldout_composition/arithmetic_swap_recall@1',)
CUA = {'objective.cross_uniformity': 0.0}


def gap(metric: str, says: str) -> Comparison:
  """How far apart the images and the texts of the held-out split lie."""
  metrics = (f'heldout_style/{metric}',)
  return Comparison(Arm('cuaxu'), says=says, metrics=metrics, lower_is_better=True)


def later(name: str, says: str, metrics: tuple[str, ...] = RECALL) -> Comparison:
  """A comparison of CUAXU or CUA and CLIP by further protocols."""
  fields = EVALUATED | (CUA if name == 'cua' else {})
  method = Arm('cuaxu', fields, f'{name}, by all protocols')
  return Comparison(method, CLIP, says, metrics=metrics, seeds=3)


CLAIM = Claim(
  method='CUAXU',
  paper=40,
  primary=Comparison(Arm('cuaxu'), says='recall, equal steps'),
  secondary={
    'centroids': gap('modality_gap', 'distance of the centroids'),
    'separability': gap('separability', 'accuracy of a linear classifier of image and text'),
    'zero_shot': Comparison(Arm('cuaxu'), says='zero-shot accuracy', metrics=ZERO_SHOT),
    'roles': later('cuaxu', 'image − word + word, in an unseen style', ROLES),
    'tones': later('cuaxu', 'image − word + word, unseen roles and tones', TONES),
    'cua': later('cua', 'CUA, recall'),
    'cua_roles': later('cua', 'CUA, image − word + word', ROLES),
  },
  family='image-text',
  notes='The paper fine-tunes CLIP at the constant temperature 0.01; here both arms train from the '
  'start with a learned one. At the length of the default run it holds, see '
  'experiments/confirmation.',
)
