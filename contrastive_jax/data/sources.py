"""Sources: random access to examples, each a dict of encoded image, texts and labels."""

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from contrastive_jax.data import emoji

_CACHED_BYTES = 2**28


class Source:
  """Examples by number; `id` in each is its number within the split, whatever the selection.

  Attributes:
    cached: whether examples, and what is made of them, may be kept in memory.
  """

  def __init__(self, records: Sequence[Mapping[str, Any]], *wheres: str, cached: bool = False):
    """Takes the records that fulfil each `where`, such as 'vendor=noto,group!=flags', in turn.

    Args:
      records: TFDS's, images encoded.
      *wheres: conditions on their fields; an empty one takes all, as does none.
      cached: keep each record in memory once it is read. Parsing costs more than decoding.

    Raises:
      OSError: here or when an example is asked for, if its file is lost or damaged.
    """

    def read(number):
      try:
        return {'id': number} | _text(records[number])
      except RuntimeError as error:  # ArrayRecord's, which names the file.
        raise OSError(
          f'example {number} cannot be read: {error}. Put the file back, or prepare the data set '
          'anew; the same command goes on from the last checkpoint'
        ) from error

    self.cached = cached
    self._read = functools.cache(read) if cached else read
    selections = [_select(self._read, len(records), where) for where in wheres or ('',)]
    # One selection stays as it is: a list of all numbers of a large data set would fill the memory.
    self._numbers = selections[0] if len(selections) == 1 else [*itertools.chain(*selections)]

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._read(self._numbers[index])

  def values(self, field: str) -> list:
    """All values of a field, in the order of the examples."""
    return [self[i][field] for i in range(len(self))]


def open_source(name: str, split: str, folder: str | None = None) -> Source:
  """Opens a split of a data set.

  Args:
    name: 'emoji', which is embedded, or the name of a prepared TFDS data set, 'name/config' too.
    split: a TFDS split such as 'train' or 'train[:50%]', or a selection by equal or unequal fields
      such as 'train[vendor=noto,group!=flags]'. A sum, 'train[skin_tone=]+train', takes the
      examples of each in turn, so that some come twice.
    folder: where TFDS data sets are prepared; default TFDS's own.

  Raises:
    ValueError: if there is no such data set, prepared for random access, or no such split.
  """
  plain, wheres = _parse(split)
  try:
    if name == 'emoji':
      builder = tfds.builder_from_directory(emoji.PREPARED)
    else:
      builder = tfds.builder(name, data_dir=folder, file_format='array_record', try_gcs=False)
    if re.split(r'[\[+]', plain)[0] not in builder.info.splits:
      raise ValueError(
        f'{name!r} has no split {plain!r}; '
        f'use one of {sorted(builder.info.splits)}, after its download_and_prepare()'
      )
    records = builder.as_data_source(plain, decoders={'image': tfds.decode.SkipDecoding()})
  except (tfds.core.DatasetNotFoundError, FileNotFoundError, NotImplementedError) as error:
    raise ValueError(
      f'config.data.name = {name!r} cannot be read from {folder or "the default TFDS folder"}: '
      f"{str(error).strip().splitlines()[0]} Use 'emoji', or prepare it with "
      f"tfds.builder({name!r}, file_format='array_record').download_and_prepare()"
    ) from error
  cached = builder.info.splits[plain].num_bytes < _CACHED_BYTES
  return Source(records, *wheres, cached=cached)


def _parse(split: str) -> tuple[str, list[str]]:
  """The TFDS split that a sum of selections is of, and the conditions of each."""
  parts = [
    re.fullmatch(r'(.*?)(?:\[([^\]]*=[^\]]*)\])?', part.strip()).groups()
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


def _select(read, count: int, where: str) -> Sequence[int]:
  if not where:
    return range(count)
  conditions = []
  for condition in where.split(','):
    match = re.fullmatch(r'\s*(\w+)\s*(!?=)\s*(.*?)\s*', condition)
    if match is None:
      raise ValueError(f'[{where}]: cannot read {condition!r}; write field=value or field!=value')
    conditions.append(match.groups())
  for field, _, _ in conditions:
    if field not in read(0):
      raise ValueError(f'[{where}]: the data has no field {field!r}; use one of {sorted(read(0))}')
  selected = [
    number
    for number in range(count)
    if all((read(number)[field] == value) == (sign == '=') for field, sign, value in conditions)
  ]
  if not selected:
    raise ValueError(f'[{where}] selects no example')
  return selected
