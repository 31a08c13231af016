"""Random access to the TFRecord files of a TFDS dataset, without TensorFlow."""

import copy
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.read_ahead import ReadAhead
from contrastive_jax.data.sources.source import BadExampleError

# A record follows its length and the checksum of that, and precedes its own checksum.
_LENGTH = struct.Struct('<Q4x')
_CHECKSUM_BYTES = 4


class TfRecords:
  """Records of TFRecord files by number."""

  def __init__(self, instructions: Sequence[Any]):
    """Locates the records, or reads their index from `FILE.index.npz`.

    Args:
      instructions: TFDS's file instructions, with `filename`, `skip` and `take`.

    Raises:
      ValueError: if a file is missing or truncated.
    """
    paths = list(dict.fromkeys(str(instruction.filename) for instruction in instructions))
    for path in paths:
      files.find(path)
    indices = dict(zip(paths, files.scan_all(paths, _scan, 'tfrecord'), strict=True))
    self._parts = []
    for instruction in instructions:
      path, end = str(instruction.filename), instruction.skip + instruction.take
      spans = indices[path]['places']
      if len(spans) < end:
        raise ValueError(f'{path} is cut off: it has {len(spans)} whole records of {end}')
      self._parts.append((path, spans[instruction.skip : end]))
    self._ends = np.cumsum([len(spans) for _, spans in self._parts])
    self._reader: Any = files

  def __len__(self) -> int:
    return int(self._ends[-1])

  def reading_ahead(self, stretch: int, stretches: int) -> 'TfRecords':
    """Returns a copy that reads stretches of files in blocks; see `read_ahead.ReadAhead`."""
    other = copy.copy(self)
    size = sum(int(spans[:, 1].sum()) for _, spans in self._parts)
    other._reader = ReadAhead(size / len(self) * stretch, stretches)
    return other

  def __getitem__(self, number: int) -> bytes:
    """Reads a record.

    Raises:
      BadExampleError: if the record cannot be read.
    """
    part, row = files.locate(self._ends, number)
    path, spans = self._parts[part]
    offset, size = spans[row].tolist()
    try:
      return self._reader.read(path, offset, size)
    except OSError as error:
      raise BadExampleError(f'{path}: the record at byte {offset}: {error}') from error


def _scan(path: str) -> dict[str, np.ndarray]:
  """Returns offset and size, in bytes, of each complete record, int64 [N, 2], as 'places'."""
  system, plain = files.open_system(path)
  end, spans, offset = system.size(plain), [], 0
  with system.open(plain, 'rb') as file:
    while offset + _LENGTH.size <= end:
      file.seek(offset)
      (size,) = _LENGTH.unpack(file.read(_LENGTH.size))
      start, offset = offset + _LENGTH.size, offset + _LENGTH.size + size + _CHECKSUM_BYTES
      if offset <= end:
        spans.append((start, size))
  return {'places': np.array(spans, np.int64).reshape(-1, 2)}
