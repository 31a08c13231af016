"""Random access to examples, dicts of an encoded image, texts and labels; selections by field."""

import copy
import itertools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from contrastive_jax.data.sources.row_ids import RowIds, row_ranges
from contrastive_jax.data.sources.selection import select


class BadExampleError(ValueError):
  """One example cannot be used; the others can."""


def plain(value: Any) -> Any:
  """Converts NumPy arrays and scalars to Python's, for writers of JSON and MessagePack.

  Raises:
    TypeError: if the value has another type.
  """
  if isinstance(value, np.ndarray | np.generic):
    return value.tolist()
  raise TypeError(
    f'{str(value)[:50]}, a {type(value).__name__}, cannot be written in this format; arrayrecord '
    'takes bytes, text, numbers, lists and dicts'
  )


def location_of(examples: Sequence[Any], number: int) -> str:
  """Locates an example: `examples.where(number)` if there is such a method, else the number."""
  return getattr(examples, 'where', 'example {}'.format)(number)


def fields_of(records: Sequence[Mapping[str, Any]], number: int) -> Mapping[str, Any]:
  """Returns a record without its image: `records.fields(number)` if there is such a method."""
  read = getattr(records, 'fields', records.__getitem__)
  return {name: value for name, value in read(number).items() if name != 'image'}


def reading_ahead(records: Sequence[Any], stretch: int, stretches: int) -> Sequence[Any]:
  """Returns records that read stretches of files in blocks, if their format can.

  Args:
    records: with a method of this name, if their format can.
    stretch: number of consecutive records that are read in any order.
    stretches: number of stretches that are read at a time.
  """
  own = getattr(records, 'reading_ahead', None)
  return own(stretch, stretches) if own else records


class Source:
  """Examples by number; the `id` of an example names its row, however often a split repeats it.

  An example whose record raises BadExampleError has only the fields `id` and `error`.

  Attributes:
    cached: whether examples and their decoded images may be cached.
    row_ranges: the rows of files that the split consists of, before any selection.
    rows: number of distinct rows of the split; every `id` is below it.
  """

  def __init__(
    self,
    records: Sequence[Mapping[str, Any]],
    *wheres: str,
    within: Sequence[range] = (),
    cached: bool = False,
  ):
    """Selects records by conditions.

    Args:
      records: records of any format, with images encoded.
      *wheres: conditions such as 'vendor=noto,similarity>0.3'; the selections are concatenated. An
        empty condition, like none at all, selects every record.
      within: the numbers of the records that each condition selects from; default all.
      cached: whether to cache each record: parsing costs more than decoding.

    Raises:
      OSError: if a file is missing or damaged; also on access to an example.
    """
    self.cached = cached
    self.row_ranges = row_ranges(records)
    self._ids = RowIds(self.row_ranges)
    self.rows = self._ids.rows
    self._records = records
    self._kept: dict[int, dict[str, Any]] = {}
    wheres = wheres or ('',)
    within = within or [range(len(records))] * len(wheres)
    selections = [
      select(self._fields, numbers, where) for numbers, where in zip(within, wheres, strict=True)
    ]
    # A single selection stays a range: a list of a large dataset's numbers would fill the memory.
    self._numbers = selections[0] if len(selections) == 1 else [*itertools.chain(*selections)]

  def __getstate__(self) -> dict[str, Any]:
    # A copy in another process starts with an empty cache.
    return vars(self) | {'_kept': {}}

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._read(self._numbers[index])

  def fields(self, index: int) -> dict[str, Any]:
    """Returns an example without its image, which is not read where the format allows."""
    return self._fields(self._numbers[index])

  def where(self, index: int) -> str:
    """Returns the file of an example and its name there."""
    return location_of(self._records, self._numbers[index])

  def position(self, index: int) -> int:
    """Returns the number of an example in the split, before any selection."""
    return self._numbers[index]

  def _read(self, number: int) -> dict[str, Any]:
    if number in self._kept:
      return self._kept[number]
    example = self._load(operator.getitem, number)
    if self.cached:
      self._kept[number] = example
    return example

  def _fields(self, number: int) -> dict[str, Any]:
    if not self.cached:
      return self._load(fields_of, number)
    return {name: value for name, value in self._read(number).items() if name != 'image'}

  def _load(self, read: Callable, number: int) -> dict[str, Any]:
    try:
      record = _text(read(self._records, number))
      record.pop('error', None)  # reserved: marks bad examples
      return record | {'id': self._ids[number]}
    except BadExampleError as error:
      return {'id': self._ids[number], 'error': str(error)}
    except RuntimeError as error:  # from ArrayRecord; it names the file
      raise OSError(
        f'example {number} cannot be read: {error}. Put the file back, or prepare the data set '
        'anew; the same command resumes from the last checkpoint'
      ) from error

  def shard_sizes(self) -> list[int]:
    """Returns the numbers of consecutive examples that lie in one file, in order."""
    ends = np.cumsum([each.size for each in self.row_ranges])
    if isinstance(self._numbers, range):
      return [each.size for each in self.row_ranges if each.size]
    numbers = np.asarray(self._numbers)
    shards = np.searchsorted(ends, numbers, side='right')
    starts = 1 + np.flatnonzero((np.diff(shards) != 0) | (np.diff(numbers) < 0))
    return np.diff([0, *starts, len(numbers)]).tolist()

  def reading_ahead(self, stretch: int, stretches: int) -> 'Source':
    """Returns a copy whose files are read in blocks, where the format allows.

    Args:
      stretch: number of consecutive examples that are read in any order.
      stretches: number of stretches that are read at a time.
    """
    if self.cached:
      return self
    other = copy.copy(self)
    other._records = reading_ahead(self._records, stretch, stretches)
    return other

  def values(self, field: str) -> list:
    """Returns the values of a field in the order of the examples.

    Raises:
      ValueError: if an example lacks the field.
    """
    read = self._read if field == 'image' else self._fields
    return [_value(read(number), field) for number in self._numbers]


def parse_split(split: str) -> list[tuple[str, str]]:
  """Parses a sum of selections into the split and the condition of each.

  >>> parse_split('train[vendor=noto]+train')
  [('train', 'vendor=noto'), ('train', '')]
  >>> parse_split('train[:50%]+test')
  [('train[:50%]', ''), ('test', '')]
  >>> parse_split('train[1:]+train[:1]')  # slices of one split, which are read as one
  [('train[1:]+train[:1]', '')]
  """
  parts = [
    re.fullmatch(r'(.*?)(?:\[([^\]]*[=<>][^\]]*)\])?', part.strip()).groups(default='')
    for part in re.split(r'\+(?![^\[]*\])', split)
  ]
  names = {plain.partition('[')[0] for plain, _ in parts}
  return parts if len(names) > 1 or any(where for _, where in parts) else [(split, '')]


def named_split(name: str, split: str) -> tuple[str, str]:
  """Returns a name without its split, which follows a colon and replaces the split 'train'.

  >>> named_split('/data/flowers:test[:50%]', 'train')
  ('/data/flowers', 'test[:50%]')
  """
  match = re.fullmatch(r'(.+?):([a-zA-Z_][^/]*)', name)
  if not match:
    return name, split
  return match[1], match[2] if split == 'train' else split


def _text(value):
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return value  # an encoded image
  if isinstance(value, Mapping):
    return {key: item if key == 'image' else _text(item) for key, item in value.items()}
  if isinstance(value, list | np.ndarray):
    return [_text(item) for item in value]
  return value


def _value(example: Mapping[str, Any], field: str):
  if 'error' in example:
    raise ValueError(f'example {example["id"]} cannot be used: {example["error"]}')
  if field not in example:
    raise ValueError(f'example {example["id"]} has no field {field!r}; it has {sorted(example)}')
  return example[field]
