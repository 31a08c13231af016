"""The plot of the verdicts: a row per claim, with its difference, interval and ±δ."""

import math
import pathlib
from collections.abc import Iterable

from experiments.claims import claim, results, statistics, tables

WIDTH, ROW, TOP, BOTTOM = 640, 34, 16, 70
LEFT, RIGHT = 172, 460  # ends of the axis
TICKS = 6  # at most

# A class of STYLE and a symbol per verdict.
MARKS = {
  statistics.HOLDS: ('holds', '<path d="M0-7L7 6H-7Z"/>'),
  statistics.REVERSES: ('reverses', '<path d="M0 7L7-6H-7Z"/>'),
  statistics.NO_DIFFERENCE: ('same', '<path d="M-5.5-5.5H5.5V5.5H-5.5Z"/>'),
  statistics.CANNOT_TELL: ('unsure', '<circle r="5.5" class="hollow"/>'),
}
# An image has no access to the colors of its page, so it brings its background.
STYLE = """
  svg { font: 15px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif }
  .card { fill: #fff; stroke: #d0d7de } .text { fill: #1f2328 } .muted { fill: #59636e }
  .small { font-size: 13px } .axis { stroke: #59636e } .grid { stroke: #e4e8ec }
  .band { fill: #eef1f4 } .interval { stroke-width: 2.5 } .hollow { fill: #fff; stroke-width: 2.5 }
  .holds { fill: #0b7a4b; stroke: #0b7a4b } .reverses { fill: #bc4c00; stroke: #bc4c00 }
  .same { fill: #0550ae; stroke: #0550ae } .unsure { fill: #59636e; stroke: #59636e }
  text { stroke: none !important }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #3d444d } .text { fill: #f0f6fc } .muted { fill: #9198a1 }
    .axis { stroke: #9198a1 } .grid { stroke: #252b33 } .band { fill: #1c222a }
    .hollow { fill: #0d1117 } .holds { fill: #3fb950; stroke: #3fb950 }
    .reverses { fill: #f0883e; stroke: #f0883e } .same { fill: #58a6ff; stroke: #58a6ff }
    .unsure { fill: #9198a1; stroke: #9198a1 }
  }
"""


def draw(*paths: pathlib.Path) -> str:
  """Returns an SVG of the primary comparisons.

  Args:
    paths: results of the claims; one that does not exist is not measured.
  """
  claims = [(claim.read(path.stem), results.read_file(path)) for path in paths]
  claims.sort(key=lambda row: -row[1].get('difference', -math.inf))
  low, high, step = _axis(claims)
  bottom = TOP + ROW * len(claims)

  def x(value: float) -> str:
    return f'{LEFT + (100 * value - low) / (high - low) * (RIGHT - LEFT):.1f}'

  size = f'width="{WIDTH - 1}" height="{bottom + BOTTOM - 1}"'
  lines = [f'<rect class="card" x="0.5" y="0.5" {size} rx="8"/>']
  for number, (measured, _) in enumerate(claims):
    delta, y = measured.primary.delta, TOP + ROW * number
    width = 2 * 100 * delta / (high - low) * (RIGHT - LEFT)
    lines.append(f'<rect class="band" x="{x(-delta)}" y="{y}" width="{width:.1f}" height="{ROW}"/>')
  for tick in range(math.ceil(low / step), math.floor(high / step) + 1):
    at, kind = x(tick * step / 100), 'grid' if tick else 'axis'
    lines.append(f'<path class="{kind}" d="M{at} {TOP}V{bottom}"/>')
    label = f'{tick * step:+d}'.replace('-', '−') if tick else '0'
    lines.append(_text(at, bottom + 19, label, 'muted small'))
  for number, (measured, found) in enumerate(claims):
    lines += _row(measured, found, TOP + ROW * number + ROW // 2, x)
  middle = (LEFT + RIGHT) // 2
  lines.append(_text(middle, bottom + 38, 'difference in points, with its interval', 'muted small'))
  lines.append(_text(middle, bottom + 55, 'shaded: within ±δ', 'muted small'))
  return '\n'.join(
    [
      f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BOTTOM}" '
      f'width="{WIDTH}" height="{bottom + BOTTOM}" role="img">',
      '<title>Difference of each method from its baseline, with interval and verdict</title>',
      f'<style>{STYLE}</style>',
      *lines,
      '</svg>\n',
    ]
  )


def _axis(claims) -> tuple[int, int, int]:
  """The ends of the axis and the step of its ticks, in whole points."""
  bounds = [bound for _, found in claims for bound in found.get('interval', ())]
  bounds += [2 * sign * measured.primary.delta for measured, _ in claims for sign in (-1, 1)]
  low, high = math.floor(100 * min(bounds)), math.ceil(100 * max(bounds))
  steps = (digit * 10**power for power in range(3) for digit in (1, 2, 5))
  return low, high, next(step for step in steps if (high - low) / step <= TICKS)


def _row(measured, found, y: int, x) -> Iterable[str]:
  """A claim: name, interval, symbol and verdict, around a height."""
  yield _text(16, y + 5, tables.name(measured), 'text')
  if not found:
    yield _text(RIGHT + 24, y + 5, tables.NOT_MEASURED, 'muted')
    return
  kind, symbol = MARKS[found['verdict']]
  low, high = found['interval']
  yield f'<path class="{kind} interval" d="M{x(low)} {y}H{x(high)}"/>'
  yield f'<g class="{kind}" transform="translate({x(found["difference"])} {y})">{symbol}</g>'
  yield f'<g class="{kind}" transform="translate({RIGHT + 32} {y})">{symbol}</g>'
  yield _text(RIGHT + 48, y + 5, found['verdict'], kind)


def _text(x: float | str, y: int, text: str, kind: str) -> str:
  anchor = ' text-anchor="middle"' if 'small' in kind else ''
  return f'<text class="{kind}" x="{x}" y="{y}"{anchor}>{text}</text>'
