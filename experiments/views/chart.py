"""Small plots side by side, as one SVG."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from contrastive_jax.report import plots

WIDTH, HEIGHT = 440, 250  # of a panel, of which 360 by 204 are the canvas of `plots`
COLUMNS = 2
EMPTY = 'Not measured yet.'
# An image has no access to the colors of its page, so it brings its background.
_LIGHT = ('#0550ae', '#bc4c00', '#0b7a4b', '#a5347f', '#59636e')
_DARK = ('#58a6ff', '#f0883e', '#3fb950', '#db61a2', '#9198a1')
_STYLE = """
  svg { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif }
  text { fill: #59636e } .title { fill: #1f2328; font-size: 14px } polyline { fill: none }
  .card { fill: #fff; stroke: #d0d7de } .axis { stroke: #59636e } .grid { stroke: #e4e8ec }
  polyline { stroke-width: 1.5 }
"""
_STYLE_DARK = """
  text { fill: #9198a1 } .title { fill: #f0f6fc }
  .card { fill: #0d1117; stroke: #3d444d } .axis { stroke: #9198a1 } .grid { stroke: #252b33 }
"""


@dataclasses.dataclass(frozen=True)
class Panel:
  """A plot of curves.

  Attributes:
    title: what the vertical axis shows.
    x: what the horizontal axis shows.
    curves: points by name; empty curves are left out.
    format: formats a value.
    doubling: whether the horizontal axis is of powers of 2.
    logarithmic: whether the horizontal axis is of powers of 10.
    joined: whether lines join the points of a curve.
  """

  title: str
  x: str
  curves: Mapping[str, Sequence[tuple[float, float]]]
  format: Callable[[float], str] = plots.plain
  doubling: bool = False
  logarithmic: bool = False
  joined: bool = True


def draw(title: str, panels: Sequence[Panel]) -> str:
  """Returns an SVG of panels, `COLUMNS` per row."""
  columns = min(COLUMNS, len(panels))
  width, height = columns * WIDTH, math.ceil(len(panels) / columns) * HEIGHT
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
    f'height="{height}" role="img">',
    f'<title>{escape(title)}</title>',
    f'<style>{_STYLE}{_colors(_LIGHT)}',
    f'@media (prefers-color-scheme: dark) {{{_STYLE_DARK}{_colors(_DARK)}}}</style>',
    f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
  ]
  for index, panel in enumerate(panels):
    row, column = divmod(index, columns)
    lines.append(f'<g transform="translate({column * WIDTH} {row * HEIGHT + 26})">')
    lines += [_text(14, -6, panel.title, 'title'), *_panel(panel), '</g>']
  return '\n'.join([*lines, '</svg>\n'])


def _panel(panel: Panel) -> list[str]:
  curves = {name: np.array(points, float) for name, points in panel.curves.items() if len(points)}
  if not curves:
    return [_text(46, 90, EMPTY)]
  if panel.doubling:
    curves = {name: np.stack([np.log2(own[:, 0]), own[:, 1]], 1) for name, own in curves.items()}
  ends = [end(own[:, 0]) for own in curves.values() for end in (np.min, np.max)]
  options = {'logarithmic': panel.logarithmic, 'integer': panel.doubling}
  x_axis = plots.horizontal(float(min(ends)), float(max(ends)), **options)
  format_x = (lambda value: f'{2**value:,.0f}') if panel.doubling else plots.plain
  found = plots.plot(curves, x_axis, format_value=panel.format, format_x=format_x, label='name')
  box, lines = found['box'], []
  for y, text in found['y_ticks']:
    lines.append(f'<path class="grid" d="M{box["left"]} {y:.1f}H{box["right"]}"/>')
    lines.append(_text(box['left'] - 6, y + 4, text, anchor='end'))
  lines.append(f'<path class="axis" d="M{box["left"]} {box["bottom"]}H{box["right"]}"/>')
  lines += [_text(x, box['bottom'] + 17, text, anchor='middle') for x, text in found['x_ticks']]
  middle = (box['left'] + box['right']) / 2
  lines.append(_text(middle, box['bottom'] + 36, panel.x, anchor='middle'))
  return [*lines, *itertools.chain(*(_curve(line, panel.joined) for line in found['lines']))]


def _curve(line: Mapping, joined: bool) -> list[str]:
  """A curve of `plots.plot` with a dot per point, and its name beside its end."""
  color = f'c{line["index"] % len(_LIGHT)}'
  marks = [f'<polyline class="s{color}" points="{line["points"]}"/>'] if joined else []
  for x, y in (point.split(',') for point in line['points'].split()):
    marks.append(f'<circle class="f{color}" cx="{x}" cy="{y}" r="3"/>')
  return [*marks, _text(line['end'][0] + 9, line['label_y'] + 4, line['label'], f'f{color}')]


def _colors(colors: Sequence[str]) -> str:
  return ''.join(
    f'\n  .fc{number} {{ fill: {color} }} .sc{number} {{ stroke: {color} }}'
    for number, color in enumerate(colors)
  )


def _text(x: float, y: float, text: str, kind: str = '', anchor: str = 'start') -> str:
  own = f' class="{kind}"' if kind else ''
  return f'<text{own} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
