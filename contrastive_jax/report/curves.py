"""Plots of metrics.jsonl."""

import collections
import math
from collections.abc import Mapping, Sequence

from contrastive_jax.report import formatting, plots

Curves = Mapping[tuple[str, str], Mapping[str, list[tuple[float, float]]]]


def read(metrics: Sequence[Mapping[str, float]]) -> Curves:
  """Returns the finite points (step, value) by group and measure, then by curve.

  The curves of a measure are its cutoffs '@1', '@5', … in order, or 'image' and 'text', or a single
  one named ''.
  """
  series = collections.defaultdict(lambda: collections.defaultdict(list))
  for line in metrics:
    for name, value in line.items():
      if name == 'step' or not math.isfinite(value):
        continue
      metric = formatting.parse_metric(name, value)
      measure, curve = metric.modality or (metric.measure, '')
      if metric.cutoff is not None:
        curve = f'@{metric.cutoff}'
      series[metric.group, measure][curve].append((line['step'], value))
  return {
    name: dict(sorted(curves.items(), key=lambda item: order(item[0])))
    for name, curves in series.items()
    # Counts that stay zero, such as skipped examples, are not plotted.
    if formatting.is_fraction(name[1]) or any(v for curve in curves.values() for _, v in curve)
  }


def order(curve: str) -> tuple[int, str]:
  """Sort key of curves: cutoffs by number, others by name."""
  return (int(curve[1:]) if curve.startswith('@') else 0, curve)


def panels(metrics: Sequence[Mapping[str, float]]) -> dict[str, list[dict]]:
  """Lays out one plot per measure, by group, with losses first, then recalls."""
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
  """Lays out the plot of one measure; `options` are those of `plots.plot`."""
  fraction = formatting.is_fraction(measure) or any(curve.startswith('@') for curve in curves)
  return plots.plot(
    curves,
    x_axis,
    format_value=plots.percent if fraction else plots.plain,
    low=0 if fraction else None,
    measure=measure,
    **options,
  )
