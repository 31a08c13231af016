"""TFRecord files of a TFDS data set, read by place and without TensorFlow."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.source import BadExampleError

# Before a record its length and that length's checksum, after it its own checksum.
_LENGTH = struct.Struct('<Q4x')
_CHECKSUM = 4


class TfRecords:
  """Records of TFRecord files by number."""

  def __init__(self, instructions: Sequence[Any]):
    """Finds the records, or reads what an earlier finding kept in `FILE.index.npz`.

    Args:
      instructions: TFDS's file instructions, with `filename`, `skip` and `take`.

    Raises:
      ValueError: if a file is missing, or is cut off.
    """
    paths = list(dict.fromkeys(str(instruction.filename) for instruction in instructions))
    for path in paths:
      files.find(path)
    indices = dict(zip(paths, files.scan_all(paths, _scan, 'tfrecord'), strict=True))
    self._parts = []
    for instruction in instructions:
      path, end = str(instruction.filename), instruction.skip + instruction.take
      places = indices[path]['places']
      if len(places) < end:
        raise ValueError(f'{path} is cut off: it has {len(places)} whole records of {end}')
      self._parts.append((path, places[instruction.skip : end]))
    self._ends = np.cumsum([len(places) for _, places in self._parts])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, number: int) -> bytes:
    """Reads a record.

    Raises:
      BadExampleError: if it cannot be read.
    """
    part, row = files.locate(self._ends, number)
    path, places = self._parts[part]
    offset, size = places[row].tolist()
    try:
      return files.read(path, offset, size)
    except OSError as error:
      raise BadExampleError(f'{path}: the record at byte {offset}: {error}') from error


def _scan(path: str) -> dict[str, np.ndarray]:
  """Offset and size, in bytes, of each whole record: int64 [N, 2]."""
  system, plain = files.open_system(path)
  end, places, offset = system.size(plain), [], 0
  with system.open(plain, 'rb') as file:
    while offset + _LENGTH.size <= end:
      file.seek(offset)
      (size,) = _LENGTH.unpack(file.read(_LENGTH.size))
      start, offset = offset + _LENGTH.size, offset + _LENGTH.size + size + _CHECKSUM
      if offset <= end:
        places.append((start, size))
  return {'places': np.array(places, np.int64).reshape(-1, 2)}
