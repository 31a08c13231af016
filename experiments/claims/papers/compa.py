"""CompA beside CLIP: pairs that differ in an attribute or in the order of words, and recall."""

from experiments.claims.claim import CLIP, EVALUATED, RECALL, Arm, Claim, Comparison

# All couples in two skin tones are in train, so those of OpenMoji, a style that the recipe does not
# train on, are the pairs of order.
ATTRIBUTE = ('heldout_composition/pairs_group_accuracy',)
ORDER = ('openmoji[skin_tone!=]/order_pairs_group_accuracy',)


def beside_clip(method: str, says: str, metrics: tuple[str, ...]) -> Comparison:
  """A method and CLIP, evaluated alike."""
  arm = Arm(method, EVALUATED, f'{method}, by all protocols')
  return Comparison(arm, CLIP, says, metrics=metrics, seeds=3)


CLAIM = Claim(
  method='CompA',
  paper=62,
  primary=beside_clip('compa', 'pairs that differ in a skin tone', ATTRIBUTE),
  secondary={
    'order': beside_clip('compa', 'pairs of the same words in another order', ORDER),
    'recall': beside_clip('compa', 'recall, equal steps', RECALL),
    'modular': beside_clip('compa_modular', 'the modular loss: pairs in skin tone', ATTRIBUTE),
    'modular_order': beside_clip('compa_modular', 'the modular loss: pairs in order', ORDER),
    'modular_recall': beside_clip('compa_modular', 'the modular loss: recall', RECALL),
  },
  family='objectives',
  notes='The accuracy is Winoground’s group score. Wrong captions in training differ in skin tones '
  'too, among other words. The modular arm also reads the tags. Both train from the start, where '
  'the paper fine-tunes in stages. Sounds in another order, the paper’s own question, are in '
  'experiments/sounds.',
)
