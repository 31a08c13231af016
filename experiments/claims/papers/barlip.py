"""BarLIP beside CLIP and CLIP-rocket, and without the recipe."""

from experiments.claims.claim import CLIP, Arm, Claim, Comparison

ALONE = {'views': 1, 'texts': 1, 'data.text_augmentation.drop_stop_words': 0.0}
CLAIM = Claim(
  method='BarLIP',
  paper=11,
  primary=Comparison(Arm('barlip'), CLIP, 'equal steps', seeds=3),
  secondary={
    'recipe': Comparison(Arm('barlip'), Arm('rocket'), 'BarLIP and CLIP-rocket', seeds=3),
    'alone': Comparison(
      Arm('barlip', ALONE, label='barlip without the recipe'),
      CLIP,
      'BarLIP without the recipe, and CLIP',
      seeds=3,
    ),
  },
  family='objectives',
)
