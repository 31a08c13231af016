"""Groups of negatives beside CLIP."""

from experiments.claims.claim import CLIP, Arm, Claim, Comparison

CLAIM = Claim(
  method='Grouped ITC',
  paper=9,
  primary=Comparison(Arm('grouped'), CLIP, '4 groups, equal steps', seeds=3),
  family='objectives',
  notes=(
    'The paper groups to save memory and communication, which `experiments/grouped` measures; the '
    'comparison here is what fewer negatives cost.'
  ),
)
