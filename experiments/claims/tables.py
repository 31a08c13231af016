"""Tables of the results of claims, formatted from experiments/claims/results/NAME.json."""

import collections
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from contrastive_jax import catalogue
from contrastive_jax.report.formatting import is_fraction
from experiments import records
from experiments.claims import claim, results, statistics

NOT_MEASURED = 'not measured'
NUMBERS = ('difference, points', 'bootstrap', 'detectable', 'δ', 'seeds', 'p')

RULE = f"""\
The arms of a comparison run with the same seeds, so that a pair has the same order of the data.
The interval is Student's, at {statistics.LEVEL:.0%}, of the mean difference over the pairs. δ,
the smallest difference that matters, is fixed before the runs.

| verdict | |
|---|---|
| **{statistics.HOLDS}** | the interval is above 0, and the difference at least δ |
| **{statistics.REVERSES}** | the interval is below 0, and the difference at most −δ |
| **{statistics.NO_DIFFERENCE}** | the interval is between −δ and δ |
| **{statistics.CANNOT_TELL}** | any other |

Over the primary comparisons of a family of claims, the false discovery rate is controlled at
{statistics.FALSE_DISCOVERIES:.2f} (Benjamini and Hochberg): a *{statistics.HOLDS}* or
*{statistics.REVERSES}* that does not survive becomes *{statistics.CANNOT_TELL}*. The tables also
have the interval of a bootstrap that resamples seeds and queries separately, and the smallest true
difference that so many pairs detect with a probability of {statistics.POWER:.0%}."""


def rule() -> str:
  """Returns how a verdict is settled, the same for all claims."""
  return RULE


def overview(*paths: pathlib.Path) -> str:
  """Returns a row per claim: its primary comparison and the verdict.

  Args:
    paths: results of the claims; one that does not exist is not measured.
  """
  rows = []
  for path in paths:
    measured, found = claim.read(path.stem), results.read_file(path)
    comparison = measured.primary
    verdict = found.get('verdict', NOT_MEASURED)
    cells = numbers(comparison, found)
    rows.append([name(measured), verdict, *cells, comparison.says, str(comparison.baseline)])
  header = ['method', 'verdict', *NUMBERS, 'compared', 'baseline']
  stale = [note for path in paths if (note := measured_before(path))]
  return '\n\n'.join([records.markdown('llrrrrrrll', header, rows), *stale])


def comparisons(path: pathlib.Path) -> str:
  """Returns a row per comparison of a claim, the primary first.

  Args:
    path: its results; not measured if it does not exist.
  """
  measured, found = claim.read(path.stem), results.read_file(path)
  below, rows = found.get('secondary', {}), []
  for key, comparison in measured.comparisons().items():
    result = found if key == 'primary' else below.get(key, {})
    means = result.get('means', {})
    arms = [
      f'{arm}: {_value(means[side], comparison)}' if means else str(arm)
      for side, arm in (('method', comparison.method), ('baseline', comparison.baseline))
    ]
    verdict = found.get('verdict', NOT_MEASURED) if key == 'primary' else ''
    rows.append([comparison.says, verdict, *numbers(comparison, result), *arms])
  header = ['compared', 'verdict', *NUMBERS, 'method', 'baseline']
  table = records.markdown('llrrrrrrll', header, rows)
  return '\n\n'.join(filter(None, [measured_before(path), table, _provenance(found)]))


def arms(path: pathlib.Path) -> str:
  """Returns a row per arm of a claim, with means over its seeds; '' before it is measured.

  Args:
    path: its results.
  """
  rows = collections.defaultdict(list)
  for row in results.read_file(path).get('rows', ()):
    rows[row['arm']].append(row)
  if not rows:
    return ''
  metrics = [metric for metric in results.KEPT if any(metric in own[0] for own in rows.values())]
  header = ['arm', 'seeds', *(_words(metric) for metric in metrics)]
  lines = [
    [arm, len(own), *(_mean(metric, [row.get(metric) for row in own]) for metric in metrics)]
    for arm, own in rows.items()
  ]
  return records.markdown('l' + 'r' * (len(header) - 1), header, lines)


def summary(path: pathlib.Path) -> str:
  """The verdict of a claim in a line."""
  found = results.read_file(path)
  if not found:
    return NOT_MEASURED
  *_, detectable, _, seeds, p = numbers(claim.read(path.stem).primary, found)
  difference = f'{signed(found["difference"])} points ({interval(found["interval"])})'
  return f'{found["verdict"]}: {difference}, {seeds} seeds, p {p}, detectable {detectable}'


def name(measured: claim.Claim) -> str:
  """The method of a claim, marked where its formula is our reading of the paper."""
  reading = catalogue.find(measured.paper).grade == 'U'
  return measured.method + ', our reading' * reading


def numbers(comparison: claim.Comparison, found: Mapping[str, Any]) -> list[str]:
  """The cells of `NUMBERS`; empty where they are not measured, as intervals of one pair of runs."""
  seeds, unit = comparison.seeds, unit_of(comparison.metrics[0])
  delta = unit.show(comparison.delta) + unit.difference
  if not found:
    return ['', '', '', delta, f'0 of {seeds}', '']
  count = str(found['seeds']) if found['seeds'] == seeds else f'{found["seeds"]} of {seeds}'
  difference = signed(found['difference'], unit)
  if 'interval' not in found:
    return [difference + unit.difference, '', '', delta, count, '']
  return [
    f'{difference} ({interval(found["interval"], unit)}){unit.difference}',
    interval(found['bootstrap'], unit) if found['bootstrap'] else '',
    unit.show(found['detectable']),
    unit.show(found['delta']) + unit.difference,
    count,
    f'{found["p"]:.3f}' if found['p'] >= 0.001 else '< 0.001',
  ]


class Unit(NamedTuple):
  """How values of a metric are shown.

  Attributes:
    scale: what they are multiplied by.
    digits: after the point.
    value: the unit that follows a value.
    difference: the unit that follows a difference; '' for points.
  """

  scale: int = 100
  digits: int = 1
  value: str = '%'
  difference: str = ''

  def show(self, value: float) -> str:
    """A value without its unit."""
    return f'{self.scale * value:.{self.digits}f}'


POINTS = Unit()
_FROM_0_TO_1 = ('hue_mae',)  # errors of numbers in this range


def unit_of(metric: str) -> Unit:
  """Milliseconds of times, percent and points of fractions, and other values as they are.

  >>> unit_of('heldout_style/effective_rank')
  Unit(scale=1, digits=1, value='', difference='')
  """
  name = metric.rpartition('/')[2]
  if 'second' in name:
    return Unit(1000, 1, ' ms', ' ms')
  if is_fraction(name) or name in _FROM_0_TO_1:
    return POINTS
  return Unit(1, 1 if re.search('rank|dimensions', name) else 3, '')


def signed(difference: float, unit: Unit = POINTS) -> str:
  """A difference such as +1.2 or −0.4, by default of fractions in points."""
  shown = round(unit.scale * difference, unit.digits) + 0.0  # −0.0 + 0.0 is 0.0
  return f'{shown:+.{unit.digits}f}'.replace('-', '−')


def interval(bounds: Sequence[float], unit: Unit = POINTS) -> str:
  """Words an interval, by default in points."""
  return f'{signed(bounds[0], unit)} to {signed(bounds[1], unit)}'


def _value(mean: float, comparison: claim.Comparison) -> str:
  unit = unit_of(comparison.metrics[0])
  return unit.show(mean) + unit.value


def measured_before(path: pathlib.Path) -> str:
  """Says that the method has changed since a claim was measured; '' if it has not."""
  measured, found = claim.read(path.stem), results.read_file(path)
  if not found or found['source'] == results.source(measured):
    return ''
  commit = found['commit'][:7]
  return f"{name(measured)}: measured before the method's source changed, at {commit}."


def _provenance(found: Mapping[str, Any]) -> str:
  if not found:
    return ''
  return f'{found["date"]}, commit {found["commit"][:7]}, {found["device"]}.'


def _words(metric: str) -> str:
  return metric.rpartition('/')[2].replace('_', ' ')


def _mean(metric: str, values: Sequence[float | None]) -> str:
  known = [value for value in values if value is not None]
  if not known:
    return ''
  mean = sum(known) / len(known)
  if '/' in metric:
    unit = unit_of(metric)
    return unit.show(mean) + unit.value
  return f'{mean:,.0f}' if mean >= 10 else f'{mean:.3f}'
