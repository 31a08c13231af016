"""Renders formulas as MathML at build time; browsers show it without a script."""

from docutils.nodes import SkipNode
from latex2mathml.converter import convert


def _inline(translator, node) -> None:
  translator.body.append(convert(node.astext()))
  raise SkipNode


def _display(translator, node) -> None:
  translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>\n')
  raise SkipNode


def setup(app) -> dict[str, bool]:
  """Adds the renderer 'mathml'."""
  app.add_html_math_renderer('mathml', (_inline, None), (_display, None))
  return {'parallel_read_safe': True}
