"""How a figure's name is taken apart, and how its value is read."""

import re
from typing import NamedTuple

_FRACTION = re.compile(
  r'recall|accuracy|precision|exact_match|zero_shot|separability|_share$|@\d+$|_top\d+$'
)
_CUTOFF = re.compile(r'(.+?)(?:@|_top)(\d+)')
_MODALITY = re.compile(r'(.+)_(image|text)')
_SPELLING = {
  '_': ' ',
  'heldout': 'held-out',
  'zero shot': 'zero-shot',
  'info nce': 'InfoNCE',
  '/': ' / ',
}


class Figure(NamedTuple):
  """A result: 'heldout_style/recall@5' is the measure 'recall' of a group at a cut-off.

  Attributes:
    name: as it stands in results.json.
    value: its number.
    group: what comes before the last '/', a split's name; '' without one.
    measure: what comes after it, without the cut-off.
    cutoff: k, or None.
  """

  name: str
  value: float
  group: str
  measure: str
  cutoff: int | None

  @property
  def modality(self) -> tuple[str, str] | None:
    """The measure and 'image' or 'text', where it ends in one of them."""
    matched = self.cutoff is None and _MODALITY.fullmatch(self.measure)
    return matched.groups() if matched else None

  @property
  def text(self) -> str:
    """The value as it is read."""
    return number(self.value, is_fraction(self.name))


def figure(name: str, value: float) -> Figure:
  """Takes a result apart."""
  group, _, measure = name.rpartition('/')
  cutoff = _CUTOFF.fullmatch(measure)
  if cutoff:
    return Figure(name, value, group, cutoff[1], int(cutoff[2]))
  return Figure(name, value, group, measure, None)


def is_fraction(name: str) -> bool:
  """Whether a result of this name is a share, from 0 to 1."""
  return _FRACTION.search(name) is not None


def number(value: float, fraction: bool) -> str:
  """A value as it is read: a fraction in percent, a whole number whole, any other to 4 digits."""
  value = float(value)
  if fraction:
    text = f'{100 * value:.1f}%'
  elif value.is_integer() or abs(value) >= 1000:
    text = f'{value:,.0f}'
  else:
    text = f'{value:.4g}'
  return text.replace('-', '−')


def label(name: str) -> str:
  """A name in words: 'heldout_style' is 'Held-out style'."""
  for written, spelled in _SPELLING.items():
    name = name.replace(written, spelled)
  return name[:1].upper() + name[1:]
