"""Layout of small line plots: positions of lines, ticks and labels on an SVG canvas.

`templates/plot.html` draws the result of `plot`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import ticker

POINTS = 240  # maximum per curve; more would be invisible

_WIDTH, _HEIGHT = 360, 204  # of the canvas, in SVG units
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 294, 10, 176  # of the plot on it
_LABEL_HEIGHT = 13  # of a label, in SVG units


class Axis:
  """Maps values from `low` to `high` to positions on the canvas, and has round `ticks`."""

  def __init__(
    self,
    low: float,
    high: float,
    start: float,
    stop: float,
    *,
    integer: bool = False,
    logarithmic: bool = False,
  ):
    self._map = math.log10 if logarithmic else float
    margin = 0 if high > low else 0.05 * abs(low) or 1
    low, high = low - margin, high + margin
    if logarithmic and high > 30 * low:  # a shorter axis has too few powers of ten
      locator = ticker.LogLocator(numticks=6)
    else:
      locator = ticker.MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=integer)
    self._ends = self._map(low), self._map(high)
    self._start, self._stop = start, stop
    self.ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]

  def __call__(self, value: float) -> float:
    """Returns the position of a value."""
    low, high = self._ends
    share = (self._map(value) - low) / (high - low)
    return float(self._start + share * (self._stop - self._start))


def horizontal(low: float, high: float, **options) -> Axis:
  """Returns a horizontal axis of the canvas."""
  return Axis(low, high, _LEFT, _RIGHT, **options)


def plot(
  curves: Mapping[str, np.ndarray],
  x_axis: Axis,
  *,
  format_value: Callable[[float], str],
  format_x: Callable[[float], str] = '{:,.0f}'.format,
  low: float | None = None,
  logarithmic: bool = False,
  label: str = 'value',
  indices: Mapping[str, int] | None = None,
  **extras: Any,
) -> dict:
  """Lays out a plot of labeled curves.

  Args:
    curves: [n, 2] points by the curve's name.
    x_axis: made by `horizontal`.
    format_value: formats a value.
    format_x: formats a value of the horizontal axis.
    low: start of the vertical axis; default the smallest value.
    logarithmic: whether the vertical axis is logarithmic.
    label: 'value' puts a curve's name and last value at its end, 'name' the name alone; 'peak' puts
      the name above the curve's maximum.
    indices: index of each curve's line style; by default its position among the curves.
    **extras: further entries of the result, such as the title.
  """
  at_peak = label == 'peak'
  curves = {name: thinned(np.asarray(curve, float)) for name, curve in curves.items()}
  values = np.concatenate([curve[:, 1] for curve in curves.values()])
  high = values.max()
  if low is not None:
    high = high if high > low else low + 1
  y_axis = Axis(
    values.min() if low is None else low,
    high,
    _BOTTOM,
    _TOP + _LABEL_HEIGHT * at_peak,
    logarithmic=logarithmic,
  )
  lines = [
    _line(name, curve, x_axis, y_axis, at_peak, format_value if label == 'value' else None)
    | {'index': index if indices is None else indices[name]}
    for index, (name, curve) in enumerate(curves.items())
  ]
  if not at_peak:
    _spread(lines)
  return extras | {
    'lines': lines,
    'at_peak': at_peak,
    'x_ticks': [(x_axis(tick), format_x(tick)) for tick in x_axis.ticks],
    'y_ticks': [(y_axis(tick), format_value(tick)) for tick in y_axis.ticks],
    'box': {
      'width': _WIDTH,
      'height': _HEIGHT,
      'left': _LEFT,
      'right': _RIGHT,
      'top': _TOP,
      'bottom': _BOTTOM,
    },
  }


def _line(name, curve, x_axis, y_axis, at_peak, format_value) -> dict:
  """Returns a curve's points, and its label beside its end or above its peak."""
  points = [(x_axis(x), y_axis(y)) for x, y in curve]
  end = points[int(curve[:, 1].argmax())] if at_peak else points[-1]
  value = '' if format_value is None else format_value(curve[-1, 1])
  return {
    'points': ' '.join(f'{x:.1f},{y:.1f}' for x, y in points),
    'end': end,
    'label': f'{name} {value}'.strip(),
    'label_y': end[1] - 8,
  }


def percent(value: float) -> str:
  """Formats a fraction for a tick or a label."""
  return f'{100 * value:.3g}%'


def plain(value: float) -> str:
  """Formats another value for a tick or a label."""
  return f'{value:,.4g}'.replace('-', '−')


def thinned(curve: np.ndarray) -> np.ndarray:
  """Averages [n, 2] points down to at most `POINTS`."""
  if len(curve) <= POINTS:
    return curve
  return np.stack([part.mean(0) for part in np.array_split(curve, POINTS)])


def _spread(lines: list[dict]) -> None:
  """Places labels beside the ends of their lines, from the bottom up, without overlap."""
  floor, ceiling = _BOTTOM, _TOP + _LABEL_HEIGHT * (len(lines) - 1)
  for line in sorted(lines, key=lambda line: -line['end'][1]):
    line['label_y'] = min(max(line['end'][1], ceiling), floor)
    floor, ceiling = line['label_y'] - _LABEL_HEIGHT, ceiling - _LABEL_HEIGHT
