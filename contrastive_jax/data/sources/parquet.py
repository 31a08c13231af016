"""Parquet files, whose row groups are read by their number."""

import copy
import io
import itertools
import json
import math
import operator
import posixpath
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging

from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.columns import Columns
from contrastive_jax.data.sources.recent import Recent
from contrastive_jax.data.sources.row_ids import RowRange
from contrastive_jax.data.sources.source import BadExampleError
from contrastive_jax.runtime.waiting import waiting

# Threads that read footers; they mostly wait for the network.
_THREADS = 16
# Bytes of decoded row groups, and of footers, that a reader keeps in each process.
_GROUP_BYTES = 2**27
_FOOTER_BYTES = 2**25
# Bytes of a row group above which random access is slow: each read decodes a row group.
_LARGE_GROUP = 2**27

# Rows per row group that `write` writes, as Hugging Face's datasets does with images.
_WRITTEN_ROWS = 100
_IMAGE = pa.struct({'bytes': pa.binary(), 'path': pa.string()})

_HELP = (
  'write them with fewer rows, as pyarrow.parquet.write_table(…, row_group_size=100) does, or '
  'convert the files with contrastive_jax.data.convert'
)


class Parquet:
  """Examples of Parquet files by number, in the order of the files.

  A row group is decoded as a whole, its images apart from its other columns. The row groups read
  last stay in memory.

  Attributes:
    bytes: size of all files; None if they name the files of the images.
    row_ranges: the rows of each row group.
  """

  def __init__(self, paths: Sequence[str]):
    """Reads the footers of the files.

    Args:
      paths: paths of the files. Image paths in them are absolute or relative to the file.

    Raises:
      ValueError: if a file is no whole Parquet file, or lacks a column of the first.
    """
    footers = _read_footers(paths)
    first = next((footer.schema for footer in footers if footer.rows), footers[0].schema)
    self._columns = Columns(first)
    for path, footer in zip(paths, footers, strict=True):
      if footer.rows and (missing := set(first.names) - set(footer.schema.names)):
        raise ValueError(f'{path} lacks the columns {sorted(missing)} of {paths[0]}')
    self._sizes = {path: footer.size for path, footer in zip(paths, footers, strict=True)}
    self.row_ranges, self._groups = [], []
    for path, footer in zip(paths, footers, strict=True):
      for group, end in enumerate(np.cumsum(footer.rows).tolist()):
        self.row_ranges.append(RowRange(path, end - footer.rows[group], end))
        self._groups.append(group)
    self._ends = np.cumsum([each.size for each in self.row_ranges])
    self._group_bytes = max((size for footer in footers for size in footer.bytes), default=0)
    if self._group_bytes > _LARGE_GROUP:
      logging.warning(
        'row groups have up to %d MiB, the first file is %s. Any read decodes one: %s',
        *(self._group_bytes // 2**20, paths[0], _HELP),
      )
    self._footers = Recent(_FOOTER_BYTES, operator.attrgetter('serialized_size'))
    self._kept = Recent(_GROUP_BYTES, operator.attrgetter('nbytes'))
    self.bytes = None
    if not self._columns.image or self._holds_images():
      self.bytes = sum(footer.size for footer in footers)

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def reading_ahead(self, stretch: int, stretches: int) -> 'Parquet':
    """Returns a copy that keeps the row groups of as many stretches in memory."""
    other = copy.copy(self)
    groups = math.ceil(stretch * len(self.row_ranges) / len(self)) + 1
    other._kept = Recent(
      max(stretches * groups * self._group_bytes, _GROUP_BYTES), operator.attrgetter('nbytes')
    )
    return other

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the fields of a row, and its encoded `image`, if there is one.

    Raises:
      BadExampleError: if the row group cannot be read, or the row has no image that can be read.
    """
    group, row = files.locate(self._ends, number)
    fields = self._read(group, encoded=False)
    example = self._columns.values(fields, row)
    if self._columns.image:
      encoded = self._read(group, encoded=True) if self._columns.encoded else None
      path = self.row_ranges[group].file
      example['image'] = self._columns.read_image(encoded, fields, row, path)
    return example

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the fields of a row; the columns of images are not read."""
    group, row = files.locate(self._ends, number)
    return self._columns.values(self._read(group, encoded=False), row)

  def image_path(self, number: int) -> str | None:
    """Returns the path of the image of a row, None if it has none."""
    group, row = files.locate(self._ends, number)
    return self._columns.path(self._read(group, encoded=False), row)

  def where(self, number: int) -> str:
    """Returns the file and the row, counted from 0."""
    group, row = files.locate(self._ends, number)
    found = self.row_ranges[group]
    return f'{found.file}: row {found.start + row}'

  def _read(self, group: int, *, encoded: bool) -> pa.Table:
    """Returns the columns of a row group: those of encoded images, or the others."""
    path = self.row_ranges[group].file

    def read():
      columns = self._columns.encoded if encoded else self._columns.fields + self._columns.paths
      opened = _open(path, self._sizes[path], self._footers.get(path, lambda: self._footer(path)))
      return opened.read_row_group(self._groups[group], columns, use_threads=False)

    try:
      return self._kept.get((group, encoded), read)
    except (OSError, ValueError, pa.ArrowException) as error:
      raise BadExampleError(
        f'{path}: the row group {self._groups[group]} cannot be read: {error}'
      ) from error

  def _holds_images(self) -> bool:
    """Whether the first row has an encoded image, and not just the path of a file."""
    if not self._columns.encoded or not len(self):
      return False
    group, row = files.locate(self._ends, 0)
    try:
      return self._columns.content(self._read(group, encoded=True), row) is not None
    except BadExampleError:
      return False

  def _footer(self, path: str) -> pq.FileMetaData:
    return _open(path, self._sizes[path]).metadata


def write(path: str, records: Iterable[Mapping[str, Any]]) -> None:
  """Writes records as Hugging Face's datasets does, with images as structs of bytes and path.

  A field that a record lacks is null.

  Args:
    path: path of the file, on a disk.
    records: examples with an encoded `image`.

  Raises:
    TypeError: if the values of a field have no common type.
  """
  # Types are known once all values are, and images are too large to keep until then.
  with (
    files.atomic_write(path) as partial,
    tempfile.TemporaryFile(dir=posixpath.dirname(path) or '.') as kept,
  ):
    sizes, fields = [], []
    for record in records:
      sizes.append(kept.write(record['image']))
      fields.append({name: item for name, item in record.items() if name not in ('id', 'image')})
    columns = {name: _column(name, fields) for name in dict.fromkeys(itertools.chain(*fields))}
    schema = pa.schema({'image': _IMAGE} | {name: each.type for name, each in columns.items()})
    kept.seek(0)
    # Encoded images do not compress, and plain pages decode two to three times as fast.
    options = {'compression': 'none', 'use_dictionary': False}
    with pq.ParquetWriter(partial, _typed(schema), **options) as writer:
      for start in range(0, len(sizes), _WRITTEN_ROWS):
        own = [{'bytes': kept.read(size)} for size in sizes[start : start + _WRITTEN_ROWS]]
        part = {name: each.slice(start, _WRITTEN_ROWS) for name, each in columns.items()}
        part['image'] = pa.array(own, _IMAGE)
        writer.write_table(pa.table(part, _typed(schema)))


def _column(name: str, fields: Sequence[Mapping[str, Any]]) -> pa.Array:
  try:
    return pa.array([row.get(name) for row in fields])
  except (pa.ArrowException, TypeError) as error:
    raise TypeError(
      f'the field {name!r} cannot be written: {error}; arrayrecord takes values of several types'
    ) from error


def _typed(schema: pa.Schema) -> pa.Schema:
  """Adds the types of Hugging Face's datasets to a schema."""
  features = {field.name: _feature(field.type) for field in schema} | {'image': {'_type': 'Image'}}
  return schema.with_metadata({'huggingface': json.dumps({'info': {'features': features}})})


def _feature(kind: pa.DataType) -> Any:
  if pa.types.is_struct(kind):
    return {field.name: _feature(field.type) for field in kind}
  if pa.types.is_list(kind):
    return [_feature(kind.value_type)]
  names = {'double': 'float64', 'float': 'float32', 'halffloat': 'float16'}
  return {'_type': 'Value', 'dtype': names.get(str(kind), str(kind))}


class _Footer(NamedTuple):
  """What is read of a file at first; `rows` and `bytes`, decoded, are those of each row group."""

  schema: pa.Schema
  size: int
  rows: list[int]
  bytes: list[int]


def _read_footers(paths: Sequence[str]) -> list[_Footer]:
  with futures.ThreadPoolExecutor(_THREADS) as pool, waiting(f'reading the end of {paths[0]}, …'):
    return [*pool.map(_read_footer, paths)]


def _read_footer(path: str) -> _Footer:
  system, plain = files.open_system(path)
  size = files.retry(path, system.size, plain)
  try:
    metadata = _open(path, size).metadata
    schema = metadata.schema.to_arrow_schema()
  except (OSError, ValueError, pa.ArrowException) as error:
    raise ValueError(f'{path} is no whole Parquet file: {error}') from error
  groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
  return _Footer(
    schema, size, [each.num_rows for each in groups], [each.total_byte_size for each in groups]
  )


def _open(path: str, size: int, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
  return pq.ParquetFile(_Ranges(path, size), metadata=footer, page_checksum_verification=True)


class _Ranges(io.RawIOBase):
  """A file that is read by range requests, each of which is retried."""

  def __init__(self, path: str, size: int):
    super().__init__()
    self._path, self._size, self._offset = path, size, 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def tell(self) -> int:
    return self._offset

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    start = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
    self._offset = start + offset
    return self._offset

  def read(self, size: int = -1) -> bytes:
    size = self._size - self._offset if size is None or size < 0 else size
    content = files.read(self._path, self._offset, size) if size else b''
    self._offset += len(content)
    return content
