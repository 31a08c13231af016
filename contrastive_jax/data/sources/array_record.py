"""ArrayRecord files of MessagePack maps, as `contrastive_jax.data.convert` writes them.

MessagePack stores bytes, text, numbers and lists without a schema, and Flax already depends on it.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grain
import msgpack
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.row_ids import whole_files
from contrastive_jax.data.sources.source import BadExampleError, plain


class ArrayRecords:
  """Examples of ArrayRecord files by number.

  Attributes:
    bytes: size of all files.
    row_ranges: the records of each file.
  """

  def __init__(self, paths: Sequence[str]):
    """Opens the files. The C++ reader needs them on a disk or a mounted bucket.

    Raises:
      ValueError: if a file is damaged, or its records are not MessagePack.
    """
    for path in paths:
      if '://' in path:
        raise ValueError(f'{path!r} is not on a disk; ArrayRecord is read from disks, mount it')
    try:
      self._records = grain.sources.ArrayRecordDataSource(paths)
    except (RuntimeError, ValueError) as error:
      raise ValueError(f'an ArrayRecord file is damaged: {error}') from error
    self.bytes = sum(map(os.path.getsize, paths))
    self.row_ranges = whole_files(paths, (ArrayRecordReader(path).num_records() for path in paths))
    if not len(self._records):
      raise ValueError(f'{paths[0]} holds no record')
    try:
      self[0]
    except (BadExampleError, RuntimeError) as error:
      raise ValueError(
        f'{paths[0]} holds no MessagePack map ({error}); files that TFDS wrote are read by tfds:'
      ) from error

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the fields of a record.

    Raises:
      BadExampleError: if the record is not a MessagePack map.
      RuntimeError: if the file is damaged.
    """
    try:
      record = msgpack.unpackb(self._records[number])
    except (ValueError, msgpack.UnpackException) as error:
      raise BadExampleError(f'the record does not unpack: {error}') from error
    if not isinstance(record, dict):
      raise BadExampleError(f'the record is a {type(record).__name__}, no map')
    return record

  def where(self, number: int) -> str:
    """Returns the file of a record and its number there."""
    for path, _, count in self.row_ranges:
      if number < count:
        return f'{path}: record {number}'
      number -= count
    raise IndexError(number)


def write(path: str, records: Iterable[Mapping[str, Any]]) -> None:
  """Writes records of bytes, text, numbers, lists and arrays, without their `id`.

  Raises:
    TypeError: if a value has another type.
  """
  # Groups of one record allow random access.
  with files.atomic_write(path) as partial:
    writer = ArrayRecordWriter(partial, 'group_size:1')
    for record in records:
      fields = {name: value for name, value in record.items() if name != 'id'}
      writer.write(msgpack.packb(fields, default=plain))
    writer.close()
