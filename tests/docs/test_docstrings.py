"""Docstrings become reStructuredText as their authors meant them."""

import textwrap

from docs.extensions.docstrings import mark_up, plain_defaults


def marked(text):
  return mark_up(textwrap.dedent(text).strip('\n').split('\n'))


def test_a_formula_is_a_literal_block():
  lines = marked("""
    The loss.

        L = |x|² * y
        s = x

    It is small.
  """)
  assert lines == ['The loss.', '', '::', '', '    L = |x|² * y', '    s = x', '', 'It is small.']


def test_a_formula_of_two_paragraphs_is_one_block():
  text = """
    The loss.

        L = x

        s = y
  """
  assert marked(text).count('::') == 1


def test_entries_of_a_section_are_none():
  text = """
    The loss.

    Args:
      x: the input.

      y: the other one.

    References:
      [1] A paper.
  """
  assert '::' not in marked(text)


def test_bars_and_stars_of_prose_are_escaped_but_not_those_of_code():
  assert marked('f = |h|, `*args`, **reads') == [r'f = \|h\|, `*args`, \*\*reads']
  assert marked('>>> 2 * 3 | 4') == ['>>> 2 * 3 | 4']


def test_results_and_references_are_lists():
  lines = marked("""
    Scores captions.

    Returns:
      first: one
        result.
      second: another.

    References:
      [1] A paper,
        and its address.
      [2] Another.
  """)
  assert lines[2:6] == [':returns:', '  - first: one', '    result.', '  - second: another.']
  assert lines[8:] == ['  - [1] A paper,', '    and its address.', '  - [2] Another.']


def test_a_plural_of_code_is_separated():
  assert marked('`Model`s of `load`.') == ['`Model`\\ s of `load`.']


def test_defaults_without_a_literal_are_dots():
  signature = '(x: dict = <factory>, f: Callable = <function C.<lambda> at 0x7f>, k: int = 2)'
  assert plain_defaults(signature) == '(x: dict = ..., f: Callable = ..., k: int = 2)'
