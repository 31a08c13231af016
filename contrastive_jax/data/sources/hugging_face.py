"""Folders of Hugging Face's datasets, read without its library.

`save_to_disk` writes Arrow streams and a state.json, in a folder per split where dataset_dict.json
lists splits. Datasets of the hub are Parquet files by split: data/train-00000-of-00002.parquet.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.columns import Columns
from contrastive_jax.data.sources.parquet import Parquet
from contrastive_jax.data.sources.row_ids import whole_files
from contrastive_jax.data.sources.source import BadExampleError

# Parquet files by split: train-00000-of-00002.parquet, train.parquet, train/0000.parquet.
_SHARD = re.compile(r'((?:data/)?)(\w+(?:\.\w+)*?)((?:-\d+)(?:-of-\d+)?)?\.parquet')
_IN_FOLDER = re.compile(r'((?:data/)?)([\w.]+)/[^/]+\.parquet')
_GLOBS = ('*.parquet', '*/*.parquet', 'data/*/*.parquet')


def open_folder(folder: str, split: str) -> 'Saved | Parquet':
  """Opens a split.

  Args:
    folder: path of the folder.
    split: name of the split; 'train' for a folder that save_to_disk wrote of one split.

  Raises:
    ValueError: if the folder has another layout, lacks the split, or a file is damaged.
  """
  if files.is_file(f'{folder}/dataset_dict.json'):
    splits = _read_json(f'{folder}/dataset_dict.json').get('splits', [])
    if split not in splits:
      raise ValueError(f'{folder} has no split {split!r}; use one of {splits}')
    return _open_saved(f'{folder}/{split}')
  if files.is_file(f'{folder}/state.json'):
    own = _read_json(f'{folder}/state.json').get('_split') or 'train'
    if split not in ('train', own):
      raise ValueError(f'{folder} holds one split, {own!r}, and is asked for {split!r}')
    return _open_saved(folder)
  patterns = _find_patterns(folder)
  if split not in patterns:
    known = f'use one of {sorted(patterns)}'
    raise ValueError(
      f'{folder} has no split {split!r}; '
      + (known if patterns else 'it holds no state.json, dataset_dict.json, or Parquet files')
    )
  return Parquet(files.find(f'{folder}/{patterns[split]}'))


def _read_json(path: str) -> dict[str, Any]:
  try:
    found = json.loads(files.read(path))
  except (OSError, ValueError) as error:
    raise ValueError(f'{path} cannot be read: {error}') from error
  if not isinstance(found, dict):
    raise ValueError(f'{path} holds a {type(found).__name__}, no object')
  return found


def _open_saved(folder: str) -> 'Saved':
  if not files.is_local(folder):
    raise ValueError(
      f'{folder} is not on a disk; folders of save_to_disk are read from disks, mount it'
    )
  state = _read_json(f'{folder}/state.json')
  names = [each.get('filename') for each in state.get('_data_files') or []]
  if not names or state.get('_indices_data_files'):
    raise ValueError(
      f'{folder}/state.json names no files, or an older selection of their rows; save it anew'
    )
  return Saved([path for name in names for path in files.find(f'{folder}/{name}')])


def _find_patterns(folder: str) -> dict[str, str]:
  """Returns the pattern of the Parquet files of each split of a folder in the hub's layout."""
  system, plain = files.open_system(folder)
  start, escaped = len(plain.rstrip('/')) + 1, plain.rstrip('/').replace('[', '[[]')
  patterns = {}
  for glob in _GLOBS:
    for path in sorted(files.retry(folder, system.glob, f'{escaped}/{glob}')):
      if match := _SHARD.fullmatch(path[start:]):
        place, split, number = match.groups()
        patterns.setdefault(split, f'{place}{split}{"-*" if number else ""}.parquet')
      elif match := _IN_FOLDER.fullmatch(path[start:]):
        patterns.setdefault(match[2], f'{match[1]}{match[2]}/*.parquet')
  return patterns


class Saved:
  """Examples of Arrow streams by number, in the order of the files.

  The files are mapped into memory, so that an example reads its own bytes alone.

  Attributes:
    bytes: size of all files; None if they name the files of the images.
    row_ranges: the rows of each file.
  """

  def __init__(self, paths: Sequence[str]):
    """Locates the batches of rows in the files.

    Args:
      paths: paths of the files, on a disk.

    Raises:
      ValueError: if a file is damaged, or has other columns than the first.
    """
    self._paths = paths
    self._buffers: dict[str, pa.Buffer] = {}
    scans = [self._scan(path) for path in paths]
    self._schema = scans[0][0]
    for path, (schema, _) in zip(paths, scans, strict=True):
      if schema.names != self._schema.names:
        raise ValueError(f'{path} has the columns {schema.names}, {paths[0]} {self._schema.names}')
    self._columns = Columns(self._schema)
    batches = [(file, *batch) for file, (_, found) in enumerate(scans) for batch in found]
    self._batches = np.array(batches, np.int64).reshape(-1, 3)
    self._ends = np.cumsum(self._batches[:, 2])
    lengths = np.bincount(self._batches[:, 0], self._batches[:, 2], len(paths))
    self.row_ranges = whole_files(paths, lengths)
    self.bytes = None
    if not self._columns.image or self._holds_images():
      self.bytes = sum(self._map(path).size for path in paths)

  def __getstate__(self) -> dict[str, Any]:
    # A copy in another process maps the files itself.
    return vars(self) | {'_buffers': {}}

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the fields of a row, and its encoded `image`, if there is one.

    Raises:
      BadExampleError: if the row is damaged, or has no image that can be read.
    """
    path, batch, row = self._locate(number)
    example = self._columns.values(batch, row)
    if self._columns.image:
      encoded = batch if self._columns.encoded else None
      example['image'] = self._columns.read_image(encoded, batch, row, path)
    return example

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the fields of a row; its image is not read."""
    _, batch, row = self._locate(number)
    return self._columns.values(batch, row)

  def image_path(self, number: int) -> str | None:
    """Returns the path of the image of a row, None if it has none."""
    _, batch, row = self._locate(number)
    return self._columns.path(batch, row)

  def where(self, number: int) -> str:
    """Returns the file and the row, counted from 0."""
    for path, _, count in self.row_ranges:
      if number < count:
        return f'{path}: row {number}'
      number -= count
    raise IndexError(number)

  def _holds_images(self) -> bool:
    """Whether the first row has an encoded image, and not just the path of a file."""
    if not self._columns.encoded or not len(self):
      return False
    _, batch, row = self._locate(0)
    return self._columns.content(batch, row) is not None

  def _locate(self, number: int) -> tuple[str, pa.RecordBatch, int]:
    """Returns the file of a row, its batch, and the row in that."""
    which, row = files.locate(self._ends, number)
    file, offset, _ = self._batches[which].tolist()
    path = self._paths[file]
    try:
      message = pa.ipc.read_message(self._map(path).slice(offset))
      return path, pa.ipc.read_record_batch(message, self._schema), row
    except (OSError, ValueError, pa.ArrowException) as error:
      raise BadExampleError(f'{path}: the batch at byte {offset}: {error}') from error

  def _map(self, path: str) -> pa.Buffer:
    if path not in self._buffers:
      with pa.memory_map(path) as file:
        self._buffers[path] = file.read_buffer()
    return self._buffers[path]

  def _scan(self, path: str) -> tuple[pa.Schema, list[tuple[int, int]]]:
    """Returns the schema of a file, and offset and number of rows of each batch."""
    batches = []
    try:
      file = pa.BufferReader(self._map(path))
      reader = pa.ipc.open_stream(file)
      offset = file.tell()
      for batch in reader:
        batch.validate()
        batches.append((offset, batch.num_rows))
        offset = file.tell()
    except (OSError, ValueError, pa.ArrowException) as error:
      raise ValueError(f'{path} is no whole Arrow stream: {error}; save it anew') from error
    if file.tell() == offset:
      raise ValueError(f'{path} is cut off after {len(batches)} batches; save it anew')
    if any(pa.types.is_dictionary(field.type) for field in reader.schema):
      raise ValueError(f'{path} has columns of dictionaries; save them as text')
    return reader.schema, batches
