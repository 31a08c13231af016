"""The lines of metrics.jsonl as plots."""

import collections
import math
from collections.abc import Mapping, Sequence

from contrastive_jax.report import formatting, plots

Curves = Mapping[tuple[str, str], Mapping[str, list[tuple[float, float]]]]


def read(metrics: Sequence[Mapping[str, float]]) -> Curves:
  """Points (step, value) by group and measure, and by curve; what is not finite is left out.

  A measure's curves are its cut-offs, '@1', '@5', … in their order, or 'image' and 'text'; or the
  one named ''.
  """
  series = collections.defaultdict(lambda: collections.defaultdict(list))
  for line in metrics:
    for name, value in line.items():
      if name == 'step' or not math.isfinite(value):
        continue
      figure = formatting.figure(name, value)
      measure, curve = figure.modality or (figure.measure, '')
      if figure.cutoff is not None:
        curve = f'@{figure.cutoff}'
      series[figure.group, measure][curve].append((line['step'], value))
  return {
    name: dict(sorted(curves.items(), key=lambda item: order(item[0])))
    for name, curves in series.items()
    # What never happened, such as skipped examples, needs no plot.
    if formatting.is_fraction(name[1]) or any(v for curve in curves.values() for _, v in curve)
  }


def order(curve: str) -> tuple[int, str]:
  """What curves sort by: cut-offs by number, others by name."""
  return (int(curve[1:]) if curve.startswith('@') else 0, curve)


def panels(metrics: Sequence[Mapping[str, float]]) -> dict[str, list[dict]]:
  """One small plot a measure, on a common axis of steps, by group: losses, then recalls first."""
  series = read(metrics)
  if not series:
    return {}
  x_axis = plots.horizontal(0, max(line['step'] for line in metrics) or 1, integer=True)
  groups = collections.defaultdict(list)
  for group, measure in sorted(
    series, key=lambda key: ('loss' not in key[1], 'recall' not in key[1])
  ):
    curves = series[group, measure]
    groups[group].append(
      panel(measure, curves, x_axis, style='kinds' if 'image' in curves else 'cutoffs')
    )
  return dict(sorted(groups.items(), key=lambda item: item[0] != 'train'))


def panel(measure: str, curves: Mapping[str, list], x_axis: plots.Axis, **options) -> dict:
  """The plot of one measure; the options are those of `plots.plot`."""
  fraction = formatting.is_fraction(measure) or any(curve.startswith('@') for curve in curves)
  return plots.plot(
    curves,
    x_axis,
    format_value=plots.percent if fraction else plots.plain,
    low=0 if fraction else None,
    measure=measure,
    **options,
  )
