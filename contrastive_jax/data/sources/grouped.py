"""Rows of one image as one example, for tables with a row per caption."""

import collections
import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from contrastive_jax.data.sources.row_ids import RowRange, row_ranges
from contrastive_jax.data.sources.source import (
  BadExampleError,
  fields_of,
  location_of,
  reading_ahead,
)
from contrastive_jax.runtime.waiting import waiting

_SCHEME = 'grouped'
_IMAGE = 'image'


def parse(name: str, schemes: Sequence[str]) -> tuple[str | None, str]:
  """Splits 'grouped:FIELD:NAME' into the field and the name, whose scheme is one of `schemes`.

  >>> parse('grouped:csv:a.csv', ['csv']), parse('grouped:image_id:csv:a.csv', ['csv'])
  (('image', 'csv:a.csv'), ('image_id', 'csv:a.csv'))
  >>> parse('csv:a.csv', ['csv'])
  (None, 'csv:a.csv')

  Raises:
    ValueError: if the name is of no files.
  """
  scheme, _, rest = name.partition(':')
  if scheme != _SCHEME:
    return None, name
  field = _IMAGE
  if rest.partition(':')[0] not in schemes:
    field, _, rest = rest.partition(':')
  if not field or rest.partition(':')[0] not in schemes:
    raise ValueError(
      f'config.data.name = {name!r}; write grouped:NAME or grouped:FIELD:NAME with a name that '
      f'starts with one of {[*schemes]}'
    )
  return field, rest


class Grouped:
  """Examples of rows that agree in a field, by number, in the order of their first rows.

  The image is that of the first row. The captions are a list. Another field has its value where the
  rows agree, else the list of their values. A row that cannot be read is an example of its own.

  Attributes:
    bytes: size of the files; None if unknown.
    row_ranges: the examples by the files of their first rows.
  """

  def __init__(self, records: Sequence[Any], field: str):
    """Reads the field of all rows.

    Args:
      records: rows of any format.
      field: the field; 'image' for the path of the image.

    Raises:
      ValueError: if no row has the field.
    """
    if field == _IMAGE and not hasattr(records, 'image_path'):
      raise ValueError(
        'its rows hold images without paths to group by; name a field, as in grouped:FIELD:NAME'
      )
    self._records, self.bytes = records, records.bytes
    numbers: dict[Any, int] = {}
    groups = np.empty(len(records), np.int64)
    found = False
    with waiting(f'grouping rows by {field!r}'):
      for row in range(len(records)):
        value = _value(records, row, field)
        found |= value is not None
        key = (row,) if value is None else value
        groups[row] = numbers.setdefault(key, len(numbers))
    if not found:
      raise ValueError(f'no row has a value of {field!r}; name a field, as in grouped:FIELD:NAME')
    self._rows = np.argsort(groups, kind='stable')
    self._starts = np.searchsorted(groups[self._rows], np.arange(len(numbers) + 1))
    self.row_ranges = _row_ranges(records, self._rows[self._starts[:-1]], field)

  def __len__(self) -> int:
    return len(self._starts) - 1

  def reading_ahead(self, stretch: int, stretches: int) -> 'Grouped':
    """Returns a copy of which the rows of stretches are read in blocks."""
    other = copy.copy(self)
    rows = math.ceil(stretch * len(self._records) / len(self))
    other._records = reading_ahead(self._records, rows, stretches)
    return other

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the merged fields of the rows, and the image of the first one.

    Raises:
      BadExampleError: if a row cannot be read.
    """
    first = self._records[self._rows_of(number)[0]]
    merged = self.fields(number)
    return merged | {'image': first['image']} if 'image' in first else merged

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the merged fields of the rows."""
    examples = [fields_of(self._records, row) for row in self._rows_of(number)]
    names = dict.fromkeys(name for example in examples for name in example)
    return {name: _merge(name, [example.get(name) for example in examples]) for name in names}

  def where(self, number: int) -> str:
    """Returns the location of the first row."""
    return location_of(self._records, self._rows_of(number)[0])

  def _rows_of(self, number: int) -> list[int]:
    return self._rows[self._starts[number] : self._starts[number + 1]].tolist()


def _value(records: Sequence[Any], row: int, field: str) -> str | int | None:
  """Returns the value by which a row is grouped; None if it has none."""
  try:
    if field == _IMAGE:
      value = records.image_path(row)
    else:
      value = fields_of(records, row).get(field)
  except BadExampleError:
    return None
  if isinstance(value, bytes):
    value = value.decode(errors='backslashreplace')
  return None if value in (None, '') else value if isinstance(value, str | int) else repr(value)


def _merge(name: str, values: Sequence[Any]) -> Any:
  if name == 'caption':
    return [text for value in values for text in (value if isinstance(value, list) else [value])]
  return values[0] if all(value == values[0] for value in values) else values


def _row_ranges(records: Sequence[Any], firsts: np.ndarray, field: str) -> list[RowRange]:
  """Returns the ranges of examples that have their first rows in each range of rows."""
  own = row_ranges(records)
  ends = np.cumsum([each.size for each in own])
  counts = np.bincount(np.searchsorted(ends, firsts, side='right'), minlength=len(own)).tolist()
  found, starts = [], collections.Counter()
  for each, count in zip(own, counts, strict=True):
    name = f'{each.file}, grouped by {field}'
    found.append(RowRange(name, starts[name], starts[name] + count))
    starts[name] += count
  return found
