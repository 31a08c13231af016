"""Selections of examples by the values of their fields."""

import array
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from contrastive_jax.data.captions import caption_id

_COMPARISONS = {'<': operator.lt, '<=': operator.le, '>': operator.gt, '>=': operator.ge}


def select(read: Callable[[int], Mapping[str, Any]], numbers: range, where: str) -> Sequence[int]:
  """Returns the numbers of the examples that meet all conditions.

  Args:
    read: number -> the fields of an example; a bad one has the field `error`.
    numbers: numbers of the examples to select from.
    where: conditions such as 'vendor=noto|twemoji,similarity>0.3', where '|' separates values; ''
      selects every example. 'concept%5=0' selects a fifth of the values of a field, by their hash.

  Raises:
    ValueError: if a condition does not parse, the data lacks a field, or no example is selected.
  """
  if not where:
    return numbers
  conditions = [_Condition(part, where) for part in where.split(',')]
  first = next((example for example in map(read, numbers) if 'error' not in example), {})
  for condition in conditions:
    if condition.field not in first:
      raise ValueError(
        f'[{where}]: the data has no field {condition.field!r}; use one of {sorted(first)}'
      )
  selected = array.array('q')  # a list would take four times the memory
  for number in numbers:
    example = read(number)
    if all(condition(example) for condition in conditions):
      selected.append(number)
  if not selected:
    texts = {each.field: first[each.field] for each in conditions if not each.can_read(first)}
    raise ValueError(f'[{where}] selects no example' + (f'; no number is {texts}' if texts else ''))
  return selected


class _Condition:
  """A condition on one field: example -> whether it is met."""

  def __init__(self, text: str, where: str):
    match = re.fullmatch(r'\s*(\w+)\s*(%[1-9]\d*)?\s*(!=|<=|>=|[=<>])\s*(.*?)\s*', text)
    if match is None:
      raise ValueError(
        f'[{where}]: cannot read {text!r}; write field=value, field!=value, or field>number with '
        '<, <=, > or >=, without commas in the value'
      )
    self.field, parts, self._sign, value = match.groups()
    self._parts = int(parts[1:]) if parts else 0
    self._texts = value.split('|')
    self._compare = _COMPARISONS.get(self._sign)
    self._bound = _number(value) if self._compare else None
    if self._compare and self._bound is None:
      raise ValueError(f'[{where}]: {value!r} in {text!r} is no number; compare texts by =')

  def can_read(self, example: Mapping[str, Any]) -> bool:
    """Whether the field of an example has a value that can be compared."""
    return self._compare is None or _number(example[self.field]) is not None

  def __call__(self, example: Mapping[str, Any]) -> bool:
    value = example.get(self.field)
    if self._parts and value is not None:
      value = int(caption_id(str(value))) % self._parts
    if self._compare is None:
      return any(_is(value, text) for text in self._texts) == (self._sign == '=')
    number = _number(value)
    return number is not None and self._compare(number, self._bound)


def _number(value: Any) -> int | float | None:
  """Returns a number, also one that a table writes as text; None for another value or NaN."""
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, str):
    for parse in (int, float):
      try:
        return _number(parse(value))
      except ValueError:
        continue
  return value if isinstance(value, int | float) and not math.isnan(value) else None


def _is(value: Any, text: str) -> bool:
  """Whether a field equals the text of a condition; numbers are compared as text."""
  return value == text or (isinstance(value, int | float | np.number) and str(value) == text)
