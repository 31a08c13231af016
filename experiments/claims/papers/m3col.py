"""M3CoL beside the same classifiers without its contrastive loss."""

from experiments.claims.claim import Arm, Claim, Comparison

# Every fifth emoji is held out with its tags, which are the same in all styles.
_SEEN = 'concept%5!=0'
_STYLES = f'train[vendor=noto|twemoji,{_SEEN}'
_UNSEEN = 'heldout_style[concept%5=0]'
_TASK = {
  'data.split': f'{_STYLES},skin_tone=]+{_STYLES},skin_tone=]+{_STYLES}]',
  'evaluation.splits': ('heldout_style', _UNSEEN),
  'evaluation.probes': ('fused_linear',),
  'evaluation.probe_split': f'train[vendor=noto,skin_tone=,group!=flags,{_SEEN}]',
}

CLAIM = Claim(
  method='M3CoL',
  paper=25,
  primary=Comparison(
    Arm('m3col', _TASK, 'm3col on four fifths of the emoji'),
    Arm(
      'm3col',
      {**_TASK, 'objective.m3col.contrastive': 0.0},
      'm3col without contrast on four fifths of the emoji',
    ),
    says='classifiers with and without the contrastive loss, equal steps',
    metrics=(f'{_UNSEEN}/subgroup_fused_linear_probe_accuracy',),
    seeds=3,
  ),
  family='objectives',
  notes=(
    'Accuracy is that of a linear probe on the embeddings of image and tags, for the subgroups of '
    'emoji of an unseen style and with unseen tags: the text of an emoji that was trained on gives '
    'its subgroup away. The authors report the accuracy of the trained classifier.'
  ),
)
