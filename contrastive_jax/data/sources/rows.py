"""JSON Lines and CSV: one row per example, with the path of its image, if it has one.

The rows of a file are located once; an example then takes one read of its row and one of its image.
"""

import array
import copy
import csv
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from contrastive_jax.data import images
from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.read_ahead import ReadAhead
from contrastive_jax.data.sources.row_ids import whole_files
from contrastive_jax.data.sources.source import BadExampleError, plain

# Field names of ours, open_clip's CSV, img2dataset, and Hugging Face's imagefolder.
FIELDS = {
  'image': ('image', 'filepath', 'file_name', 'image_path', 'path'),
  'caption': ('caption', 'title', 'text'),
}

# Bytes of a quoted field, as many as the longest caption has at four bytes per character.
_MAX_ROW_BYTES = 2**18
_PATH = re.compile(rb'\S*/\S*|.*\.(%s)' % '|'.join(images.ENDINGS).encode(), re.IGNORECASE)


class Rows:
  """Examples of JSONL or CSV files by number, in their order.

  Attributes:
    bytes: None; the size of the images is unknown.
    row_ranges: the rows of each file.
  """

  bytes = None

  def __init__(self, paths: Sequence[str], *, table: bool):
    """Locates the rows, or reads their index from `FILE.index.npz`.

    Args:
      paths: paths of the files. Image paths in them are absolute or relative to the file.
      table: True for CSV, separated by commas or tabs, with a header; False for JSONL.

    Raises:
      ValueError: if no row can be used.
    """
    self._paths, self._reader = paths, files
    indices = files.scan_all(
      paths, _scan_table if table else _scan_lines, 'table by its columns' if table else 'lines'
    )
    _report(paths, indices)
    lengths = [len(index['places']) for index in indices]
    self.row_ranges, self._ends = whole_files(paths, lengths), np.cumsum(lengths)
    self._spans = np.concatenate([index['places'] for index in indices])
    self._headers = table and [
      _header(path, index['places']) for path, index in zip(paths, indices, strict=True)
    ]
    self._names = self._find_names()

  def __len__(self) -> int:
    return int(self._ends[-1])

  def reading_ahead(self, stretch: int, stretches: int) -> 'Rows':
    """Returns a copy that reads rows in blocks, images one by one; see `read_ahead.ReadAhead`."""
    other = copy.copy(self)
    other._reader = ReadAhead(self._spans[:, 1].mean() * stretch, stretches)
    return other

  def _find_names(self) -> dict[str, str]:
    """Returns the names of the image and caption fields in the first row that parses."""
    error = 'it has no row'
    for number in range(min(len(self), 100)):
      try:
        _, row = self._row(number)
      except BadExampleError as bad:
        error = str(bad)
        continue
      names = {
        field: next((name for name in candidates if name in row), None)
        for field, candidates in FIELDS.items()
      }
      return {field: name for field, name in names.items() if name}
    raise ValueError(f'{self._paths[0]} cannot be used: {error}')

  def _row(self, number: int) -> tuple[str, Mapping[str, Any]]:
    """Returns the path of the file, and the fields of the row."""
    which, _ = files.locate(self._ends, number)
    path = self._paths[which]
    offset, size = self._spans[number].tolist()
    try:
      encoded = self._reader.read(path, offset, size)
      text = encoded.decode('utf-8-sig' if offset == 0 else 'utf-8')
      row = _parse_row(text, *self._headers[which]) if self._headers else json.loads(text)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
      raise BadExampleError(f'{path}: the row at byte {offset} does not parse: {error}') from error
    if not isinstance(row, dict):
      raise BadExampleError(f'{path}: the row at byte {offset} is a {type(row).__name__}')
    return path, row

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the fields of a row, with the encoded `image` and the text as `caption`, if any.

    Raises:
      BadExampleError: if the row does not parse, or its image cannot be read.
    """
    image, fields = self._image_and_fields(number)
    return fields if image is None else fields | {'image': files.read_image(image)}

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the fields of a row without its image, whose file is not opened."""
    return self._image_and_fields(number)[1]

  def image_path(self, number: int) -> str | None:
    """Returns the path of the image of a row, None where rows have none.

    Raises:
      BadExampleError: if the row does not parse, or has no path.
    """
    return self._image_and_fields(number)[0]

  def _image_and_fields(self, number: int) -> tuple[str | None, dict[str, Any]]:
    """Returns the path of the image, None where rows have none, and the other fields."""
    path, row = self._row(number)
    others = dict(row)
    for field, own in self._names.items():
      others[field] = others.pop(own, '')
    if 'image' not in self._names:
      return None, others
    name = others.pop('image')
    if not name or not isinstance(name, str):
      raise BadExampleError(f'{path}: {self._names["image"]} = {name!r} is no path of an image')
    return files.beside(path, name), others

  def where(self, number: int) -> str:
    """Returns the file, the row, counted from 1 below the header, and the path of the image."""
    which, row = files.locate(self._ends, number)
    location = f'{self._paths[which]}: row {row + 1}'
    try:
      _, fields = self._row(number)
    except BadExampleError:
      return location
    return f'{location}, {fields.get(self._names["image"])}' if 'image' in self._names else location


def _report(paths: Sequence[str], indices: Sequence[Mapping[str, np.ndarray]]) -> None:
  """Warns of tables with far fewer rows than lines, which unbalanced quotes can cause."""
  for path, index in zip(paths, indices, strict=True):
    if index.get('lines', 0) > 2 * len(index['places']):
      logging.warning(
        '%s has %d rows in %d lines: look whether its captions have so many line ends in quotes',
        path,
        len(index['places']),
        index['lines'],
      )


def _scan_lines(path: str) -> dict[str, np.ndarray]:
  """Returns offset and size, in bytes, of each nonblank line, int64 [N, 2], as 'places'."""
  system, plain = files.open_system(path)
  spans, offset = array.array('q'), 0  # a list of pairs would take ten times the memory
  with system.open(plain, 'rb') as lines:
    for line in lines:
      if line.strip():
        spans.extend((offset, len(line)))
      offset += len(line)
  return {'places': np.array(spans, np.int64).reshape(-1, 2)}


def _scan_table(path: str) -> dict[str, np.ndarray]:
  """Locates the rows of a table.

  Lines form one row if `_Columns.may_continue` accepts each, the quotes balance, and the row has as
  many columns as the header. Otherwise each line is a row, good or bad.

  Returns:
    'places', int64 [N, 2]: offset and size, in bytes, of each row after the header;
    'lines': the number of lines in these rows.
  """
  system, plain = files.open_system(path)
  spans, lines = array.array('q'), 0
  with system.open(plain, 'rb') as file:
    header = next(iter(file), b'')
    columns, offset = _Columns(header), len(header)
    row: list[bytes] = []
    size = 0

    def texts() -> Iterator[str]:
      nonlocal size
      for line in file:
        if row and not columns.may_continue(line, size):
          return  # the line is read again, as a row of its own
        size += len(line)
        row.append(line)
        yield line.decode('latin-1')  # one character per byte; only the structure counts

    rows = _reader(texts(), columns.separator)
    while True:
      try:
        matched = len(next(rows, ())) == columns.count
      except csv.Error:
        matched = False
      if not row:
        break
      if not matched:
        del row[1:]
        size = len(row[0])
        file.seek(offset + size)
        rows = _reader(texts(), columns.separator)
      if size > 2 or row[0].strip(b'\r\n'):
        spans.extend((offset, size))
        lines += len(row)
      offset += size
      size = 0
      row.clear()
  return {'places': np.array(spans, np.int64).reshape(-1, 2), 'lines': np.int64(lines)}


class _Columns:
  """The columns of a table, from its header.

  Attributes:
    count: number of columns.
    separator: character between values.
  """

  def __init__(self, header: bytes):
    """Parses the first line of the file."""
    text = header.decode('utf-8-sig', errors='replace')
    self.separator = _separator(text)
    self._separator = self.separator.encode()
    try:
      names = next(_reader([text], self.separator), [])
    except csv.Error:
      names = []  # `_header` raises for this table
    self.count = len(names)
    self._image = next((names.index(name) for name in FIELDS['image'] if name in names), 0)

  def may_continue(self, line: bytes, size: int) -> bool:
    """Whether a line may continue the open quote of a row with `size` bytes so far.

    A line without quotes that has all columns, with a path in the image's, is a row of its own, and
    the open quote is a mistake. The path is checked for commas alone: text rarely has tabs.
    """
    if size > _MAX_ROW_BYTES:
      return False
    if b'"' in line or line.count(self._separator) != self.count - 1:
      return True
    path = line.split(self._separator)[self._image].strip()
    return self.separator != '\t' and not _PATH.fullmatch(path)


def _reader(lines: Iterable[str], separator: str, **dialect):
  # The field limit, a setting of the process, is lifted: a huge caption is only a bad example.
  csv.field_size_limit(sys.maxsize)
  return csv.reader(lines, delimiter=separator, strict=True, **dialect)


def _separator(header: str) -> str:
  return '\t' if '\t' in header else ','


def _lines(text: str) -> list[str]:
  return re.split(r'(?<=\n)', text)  # str.splitlines splits at other characters too


def _header(path: str, spans: np.ndarray) -> tuple[list[str], str]:
  """Returns the names of the columns, and the separator."""
  size = int(spans[0, 0]) if len(spans) else None
  text = files.read(path, 0, size).decode('utf-8-sig', errors='replace')
  separator = _separator(text)
  try:
    return next(_reader(_lines(text), separator), []), separator
  except csv.Error as error:
    raise ValueError(f'the header of {path} does not parse: {error}') from error


def _parse_row(text: str, names: Sequence[str], separator: str) -> dict[str, str]:
  dialects: list[dict[str, Any]] = [{}]
  if '\\"' in text:
    dialects.append({'escapechar': '\\'})
  if separator == '\t':  # tab-separated files are often written without quoting
    dialects.append({'quoting': csv.QUOTE_NONE})
  faults = []
  for dialect in dialects:
    try:
      values = next(_reader(_lines(text), separator, **dialect), [])
    except csv.Error as error:
      faults.append(f'{error}; a quote within a quoted text is written twice')
      continue
    if len(values) == len(names):
      return dict(zip(names, values, strict=True))
    faults.append(f'it has {len(values)} columns, the header {len(names)}')
  raise ValueError(faults[0])


def write(path: str, records: Iterable[Mapping[str, Any]]) -> None:
  """Writes examples as JSON Lines, and their images into a folder of the same name.

  Args:
    path: path of the file, '*.jsonl', on a disk.
    records: examples with an encoded `image` and a number `id`, which names the image file.

  Raises:
    TypeError: if a field is not JSON serializable.
  """
  folder = pathlib.Path(path).with_suffix('')
  folder.mkdir(exist_ok=True)
  with (
    files.atomic_write(path) as partial,
    open(partial, 'w', encoding='utf-8', newline='\n') as lines,
  ):
    for record in records:
      image = folder / f'{record["id"]:09}.{images.file_type(record["image"])}'
      image.write_bytes(record['image'])
      fields = {name: value for name, value in record.items() if name not in ('id', 'image')}
      row = {'image': f'{folder.name}/{image.name}'} | fields
      lines.write(json.dumps(row, ensure_ascii=False, default=plain) + '\n')
