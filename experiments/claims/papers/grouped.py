"""Groups of negatives beside CLIP, and training in two languages beside one."""

from experiments.claims.claim import Arm, Claim, Comparison

_BILINGUAL = {'data.tokenizer': 'emoji_en_zh', 'data.captions': 'caption*0.5+names.zh*0.5'}

CLAIM = Claim(
  method='Grouped ITC',
  paper=9,
  primary=Comparison(Arm('grouped'), says='4 groups, equal steps', seeds=3),
  secondary={
    'bilingual': Comparison(
      Arm('clip', _BILINGUAL, 'clip in English and Chinese'),
      says='captions in two languages, retrieval in English',
      seeds=3,
    ),
  },
  family='objectives',
  notes=(
    'The paper groups to save memory and communication, which `experiments/grouped` measures; the '
    'comparison here is what fewer negatives cost.'
  ),
)
