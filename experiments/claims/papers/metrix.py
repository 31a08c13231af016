"""Metrix beside the same losses without mixtures, on classes that training never sees."""

from experiments.claims.claim import Arm, Claim, Comparison

_RECALL = ('test/recall@1',)
_CLEAN = {'mixup.level': 'none'}
_METHOD, _BASELINE = Arm('metrix'), Arm('metrix', _CLEAN, 'contrastive')


def _level(level: str) -> Comparison:
  """Mixtures at another level, of which the authors weigh both types equally."""
  arm = Arm('metrix', {'mixup.level': level, 'mixup.anchor_weight': 0.4}, f'metrix, {level}')
  return Comparison(arm, _BASELINE, f'mixtures of {level}s', metrics=_RECALL, seeds=1)


def _loss(loss: str) -> Comparison:
  """Another loss."""
  name, fields = loss.replace('_', ' '), {'loss': loss}
  arm, baseline = Arm('metrix', fields, f'metrix, {name}'), Arm('metrix', fields | _CLEAN, name)
  return Comparison(arm, baseline, f'the {name} loss', metrics=_RECALL, seeds=1)


CLAIM = Claim(
  method='Metrix',
  paper=20,
  primary=Comparison(
    _METHOD, _BASELINE, 'the contrastive loss with and without mixtures', metrics=_RECALL
  ),
  secondary={
    'utilization': Comparison(
      _METHOD,
      _BASELINE,
      'squared distance of test images to the nearest training image',
      delta=0.005,
      metrics=('test/utilization',),
      lower_is_better=True,
    ),
    'input': _level('input'),
    'feature': _level('feature'),
    'multi_similarity': _loss('multi_similarity'),
    'proxy_anchor': _loss('proxy_anchor'),
  },
  family='labels',
  notes=(
    'Half of the subgroups of emoji train, and recall is that of the nearest other image of the '
    'other half. The encoder is small and starts at random; the authors fine-tune a ResNet-50 of '
    'ImageNet.'
  ),
)
