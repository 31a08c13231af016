"""Parses names of metrics, and formats their values."""

import re
from typing import NamedTuple

_FRACTION = re.compile(
  r'recall|accuracy|precision|exact_match|zero_shot|separability|ssim|overconfidence|forgetting'
  r'|(_share|mean_iou|calibration_error)$|@\d+$|_top\d+$'
)
_CUTOFF = re.compile(r'(.+?)(?:@|_top)(\d+)')
_MODALITY = re.compile(r'(.+)_(image|text|first|second)')
_SPELLING = {
  '_': ' ',
  'heldout': 'held-out',
  'zero shot': 'zero-shot',
  'info nce': 'InfoNCE',
  '/': ' / ',
}


class Metric(NamedTuple):
  """A metric: 'heldout_style/recall@5' is the measure 'recall' of a group at cutoff 5.

  Attributes:
    name: its name in results.json.
    value: its value.
    group: the part before the last '/', such as a split; '' without one.
    measure: the part after it, without the cutoff.
    cutoff: k, or None.
  """

  name: str
  value: float
  group: str
  measure: str
  cutoff: int | None

  @property
  def modality(self) -> tuple[str, str] | None:
    """The measure, and 'image', 'text', 'first' or 'second', if it ends in one of them."""
    matched = self.cutoff is None and _MODALITY.fullmatch(self.measure)
    return matched.groups() if matched else None

  @property
  def text(self) -> str:
    """The formatted value."""
    return number(self.value, is_fraction(self.name))


def parse_metric(name: str, value: float) -> Metric:
  """Parses the name of a metric."""
  group, _, measure = name.rpartition('/')
  cutoff = _CUTOFF.fullmatch(measure)
  if cutoff:
    return Metric(name, value, group, cutoff[1], int(cutoff[2]))
  return Metric(name, value, group, measure, None)


def is_fraction(name: str) -> bool:
  """Whether a metric of this name is a fraction, from 0 to 1."""
  return _FRACTION.search(name) is not None


def number(value: float, fraction: bool) -> str:
  """Formats a value: a fraction in percent, an integer in full, others to 4 digits."""
  value = float(value)
  if fraction:
    text = f'{100 * value:.1f}%'
  elif value.is_integer() or abs(value) >= 1000:
    text = f'{value:,.0f}'
  else:
    text = f'{value:.4g}'
  return text.replace('-', '−')


def label(name: str) -> str:
  """Formats a name for display: 'heldout_style' becomes 'Held-out style'."""
  for written, spelled in _SPELLING.items():
    name = name.replace(written, spelled)
  return name[:1].upper() + name[1:]
