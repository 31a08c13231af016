"""Adapts the docstrings of the package, Google style in plain text, to reStructuredText."""

import re
from collections.abc import Sequence


def mark_up(lines: Sequence[str]) -> list[str]:
  """Marks formulas as literal blocks, entries of sections as lists, and escapes other markup.

  A block is literal where it is indented after an empty line, outside of a section: entries of a
  section follow their heading at once. Doctests stay as they are.
  """
  marked, heading, kind = [], '', 'prose'
  for before, line in zip(['', *lines], lines, strict=False):
    starts = bool(line.strip()) and not before.strip()
    if line.startswith('>>>'):
      kind = 'doctest'
    elif starts and line[0].isspace() and kind != 'literal' and not heading:
      kind = 'literal'
      marked += ['::', '']
    elif starts and not line[0].isspace():
      kind = 'prose'
      heading = line if re.fullmatch(r'\w+:', line) else ''
    if heading in ('Returns:', 'References:') and _ENTRY[heading].match(line):
      line = f'  - {line.strip()}'
    if line == 'Returns:':
      line = ':returns:'  # napoleon would take the words before a colon for a type
    marked.append(_escape(line) if kind == 'prose' else line)
  return marked


# The first line of one of several results, or of a reference.
_ENTRY = {'Returns:': re.compile(r'  \w+: '), 'References:': re.compile(r'  \[\d+\] ')}


def _escape(line: str) -> str:
  """Escapes bars and stars outside of backticks, and separates these from a plural's s."""
  parts = re.split(r'(`[^`]*`)', line)
  for number, part in enumerate(parts):
    if part[:1] != '`':
      parts[number] = re.sub(r'([|*])', r'\\\1', part)
    elif parts[number + 1][:1].isalpha():
      parts[number] += '\\ '
  return ''.join(parts)


def _process(app, what, name, target, options, lines) -> None:
  lines[:] = mark_up(lines)


def plain_defaults(signature: str) -> str:
  """Replaces defaults without a literal, such as `<factory>`, which Sphinx cannot parse."""
  found = 1
  while found:  # one may hold another: <function f.<lambda> at 0x7f>
    signature, found = re.subn('<[^<>]*>', '...', signature)
  return signature


def _process_signature(app, what, name, target, options, signature, returned):
  return (plain_defaults(signature), returned) if signature else None


def _skip(app, what, name, target, skip, options) -> bool | None:
  """Skips the fields of named tuples, which their class describes."""
  is_field = (getattr(target, '__doc__', None) or '').startswith('Alias for field number')
  return True if is_field else None


def setup(app) -> dict[str, bool]:
  """Runs before napoleon, which has the default priority of 500."""
  app.connect('autodoc-process-docstring', _process, priority=400)
  app.connect('autodoc-process-signature', _process_signature)
  app.connect('autodoc-skip-member', _skip)
  return {'parallel_read_safe': True}
