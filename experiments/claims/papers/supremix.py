"""SupReMix beside SupCon and a plain regression, by the error of a number."""

from experiments.claims.claim import Arm, Claim, Comparison

_SUPCON = {f'objective.supremix.{name}': False for name in ('mix_negatives', 'weighted')}
_SUPCON['objective.supremix.window'] = 0
_KEPT = 'vendor=noto|twemoji,skin_tone=,chroma>=0.05'
_SMALL = f'train[{_KEPT},concept%10=0]'
_IMBALANCED = f'train[{_KEPT},hue<0.5]+train[{_KEPT},hue>=0.5,concept%10=0]'
_LATO = {
  'data.name': 'measured:lato',
  'data.number': 'weight',
  'data.split': 'train',
  'evaluation.splits': ('heldout',),
  'evaluation.probe_split': 'train',
  'evaluation.numbers': ('weight', 'ink'),
  'objective.supremix.unit': 0.1,
}


def _on(split: str) -> dict[str, str]:
  return {'data.split': split, 'evaluation.probe_split': split}


def _compare(
  says: str,
  fields: dict,
  label: str,
  metric: str = 'heldout_style[chroma>=0.05]/hue_mae',
  delta: float = 0.005,
  seeds: int = 1,
) -> Comparison:
  """SupReMix and SupCon with some fields."""
  named = f', {label}' if label else ''
  return Comparison(
    Arm('supremix', fields, f'supremix{named}'),
    Arm('supremix', fields | _SUPCON, f'supcon{named}'),
    says,
    metrics=(metric,),
    lower_is_better=True,
    delta=delta,
    seeds=seeds,
  )


_PRIMARY = _compare('SupCon, hue, equal steps', {}, '', seeds=5)

CLAIM = Claim(
  method='SupReMix',
  paper=18,
  primary=_PRIMARY,
  family='labels',
  secondary={
    'absolute_error': Comparison(
      _PRIMARY.method,
      Arm('absolute_error'),
      'L1, trained end to end, hue, equal steps',
      metrics=_PRIMARY.metrics,
      lower_is_better=True,
      delta=0.005,
      seeds=1,
    ),
    'small': _compare('a tenth of the concepts', _on(_SMALL), 'a tenth'),
    'imbalanced': _compare('a tenth of the hues from 0.5', _on(_IMBALANCED), 'imbalanced'),
    'lato': _compare(
      'font weights of unseen letters, from 0.1 to 0.9',
      _LATO,
      'lato',
      'heldout/weight_mae',
      delta=0.005,
    ),
  },
  notes='The error is that of a ridge regression on frozen features, of hues as shares of '
  'the circle, on an unseen vendor. L1 sees one view per image. `heldout/weight_by_ink_mae` in the '
  'results of the arms on Lato is the error of a regression on ink alone.',
)
