"""Random access to examples, each a dict of encoded image, texts and labels, and selections."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class BadExampleError(ValueError):
  """One example cannot be used; those around it can."""


def plain(value: Any) -> Any:
  """NumPy's arrays and numbers as Python's, for writers of JSON and MessagePack.

  Raises:
    TypeError: if it is neither.
  """
  if isinstance(value, np.ndarray | np.generic):
    return value.tolist()
  raise TypeError(
    f'{str(value)[:50]}, a {type(value).__name__}, cannot be written in this format; arrayrecord '
    'takes bytes, text, numbers, lists and dicts'
  )


def place_of(examples: Sequence[Any], number: int) -> str:
  """The file of an example and its name there, as `examples.where` tells; else its number."""
  return getattr(examples, 'where', 'example {}'.format)(number)


class Source:
  """Examples by number; `id` in each is its number within the split, whatever the selection.

  One whose record raises BadExampleError has the fields `id` and `error` alone.

  Attributes:
    cached: whether examples, and what is made of them, may be kept in memory.
    ids: how many there are in the split; every `id` is below.
  """

  def __init__(self, records: Sequence[Mapping[str, Any]], *wheres: str, cached: bool = False):
    """Takes the records that fulfil each `where`, such as 'vendor=noto,group!=flags', in turn.

    Args:
      records: TFDS's or another format's, images encoded.
      *wheres: conditions on their fields; an empty one takes all, as does none.
      cached: keep each record in memory once it is read. Parsing costs more than decoding.

    Raises:
      OSError: here or when an example is asked for, if its file is lost or damaged.
    """
    self.cached = cached
    self.ids = len(records)
    self._records = records
    self._kept: dict[int, dict[str, Any]] = {}
    selections = [_select(self._read, len(records), where) for where in wheres or ('',)]
    # One selection stays as it is: a list of all numbers of a large data set would fill the memory.
    self._numbers = selections[0] if len(selections) == 1 else [*itertools.chain(*selections)]

  def __getstate__(self) -> dict[str, Any]:
    # What goes to a process reads anew what it needs.
    return vars(self) | {'_kept': {}}

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._read(self._numbers[index])

  def where(self, index: int) -> str:
    """The file of an example and its name there."""
    return place_of(self._records, self._numbers[index])

  def _read(self, number: int) -> dict[str, Any]:
    if number in self._kept:
      return self._kept[number]
    try:
      record = _text(self._records[number])
      record.pop('error', None)  # A field of that name says nothing of whether it can be used.
      example = record | {'id': number}
    except BadExampleError as error:
      example = {'id': number, 'error': str(error)}
    except RuntimeError as error:  # ArrayRecord's, which names the file.
      raise OSError(
        f'example {number} cannot be read: {error}. Put the file back, or prepare the data set '
        'anew; the same command goes on from the last checkpoint'
      ) from error
    if self.cached:
      self._kept[number] = example
    return example

  def values(self, field: str) -> list:
    """All values of a field, in the order of the examples.

    Raises:
      ValueError: if an example has no such field.
    """
    examples = (self[i] for i in range(len(self)))
    return [_value(example, field) for example in examples]


def parse_split(split: str) -> tuple[str, list[str]]:
  """The plain split that a sum of selections is of, and the conditions of each.

  >>> parse_split('train[vendor=noto]+train')
  ('train', ['vendor=noto', ''])

  Raises:
    ValueError: if they are of different splits.
  """
  parts = [
    re.fullmatch(r'(.*?)(?:\[([^\]]*[=<>][^\]]*)\])?', part.strip()).groups()
    for part in re.split(r'\+(?![^\[]*\])', split)
  ]
  if not any(where for _, where in parts):
    return split, []
  plain = {name for name, _ in parts}
  if len(plain) > 1:
    raise ValueError(f'{split!r} selects from {sorted(plain)}; select from one split')
  return plain.pop(), [where or '' for _, where in parts]


def _text(value):
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return value  # An encoded image.
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


def _select(read, count: int, where: str) -> Sequence[int]:
  if not where:
    return range(count)
  conditions = []
  for condition in where.split(','):
    match = re.fullmatch(r'\s*(\w+)\s*(!?=)\s*(.*?)\s*', condition)
    if match is None:
      raise ValueError(
        f'[{where}]: cannot read {condition!r}; write field=value or field!=value, without commas '
        'in the value. For other conditions, such as a score above a bound, filter the files'
      )
    conditions.append(match.groups())
  for field, _, _ in conditions:
    first = next((read(number) for number in range(count) if 'error' not in read(number)), {})
    if field not in first:
      raise ValueError(f'[{where}]: the data has no field {field!r}; use one of {sorted(first)}')
  selected = [
    number
    for number in range(count)
    if all(
      _is(read(number).get(field), value) == (sign == '=') for field, sign, value in conditions
    )
  ]
  if not selected:
    raise ValueError(f'[{where}] selects no example')
  return selected


def _is(value: Any, text: str) -> bool:
  """Whether a field is what a condition says; a number is as it is written."""
  return value == text or (isinstance(value, int | float | np.number) and str(value) == text)
