"""WebDataset: tar shards in which the files of an example share a name up to its first dot.

A shard's headers are read once; then any example is one read, as its files lie
together.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from contrastive_jax.data import images
from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.source import BadExampleError, plain

IMAGES = ('jpg', 'jpeg', 'png', 'webp', 'gif', 'bmp')
_KINDS = {'image': IMAGES, 'text': ('txt',), 'fields': ('json',)}
_BLOCK = 512  # bytes: tar's unit
_UNITS = np.array([_BLOCK, 1])  # bytes: of an offset and of a size, as an index keeps them


class WebDataset:
  """Examples of tar shards by number, in the shards' order.

  Of a shard that is cut off, the examples before the cut are there, and the log says so.

  Attributes:
    bytes: of all files of the examples.
  """

  def __init__(self, paths: Sequence[str]):
    """Reads the shards' headers, or what an earlier reading kept in `SHARD.index.npz`.

    Args:
      paths: of the shards, plain tar.

    Raises:
      ValueError: if one is no plain tar.
    """
    self._paths = paths
    indices = files.scan_all(paths, _scan, 'webdataset of blocks')
    for path, index in zip(paths, indices, strict=True):
      if index['cut']:
        logging.warning(
          '%s is cut off or damaged before byte %d: its %d whole examples are used',
          path,
          index['cut'],
          len(index['places']),
        )
    self._places = [index['places'] for index in indices]
    self._ends = np.cumsum([len(places) for places in self._places])
    self.bytes = sum(int(places[..., 1].sum(dtype=np.int64)) for places in self._places)

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, number: int) -> dict[str, Any]:
    """The image's bytes, the text as `caption`, and the fields of the JSON.

    Raises:
      BadExampleError: if one of its files is missing, cannot be read, or is no JSON object.
    """
    shard, row = files.locate(self._ends, number)
    path, places = self._paths[shard], self._places[shard][row] * _UNITS
    first = int(places[places[:, 0] > 0, 0].min())
    content = _read(path, first, int(places.sum(1).max()) - first)
    parts = {
      kind: content[offset - first : offset - first + size]
      for kind, (offset, size) in zip(_KINDS, places.tolist(), strict=True)
      if offset  # No file's content starts where its header would.
    }
    if 'image' not in parts or not parts.keys() & {'text', 'fields'}:
      raise BadExampleError(
        f'{path} has only {sorted(parts)} at byte {first}; an example is an image '
        f'({", ".join(IMAGES)}) and a txt or json of the same name'
      )
    record = _object(parts['fields'], path) if 'fields' in parts else {}
    record['image'] = parts['image']
    if 'text' in parts:
      record['caption'] = parts['text']
    return record


def _read(path: str, offset: int, size: int) -> bytes:
  try:
    content = files.read(path, offset, size)
  except OSError as error:
    raise BadExampleError(f'{path} cannot be read at byte {offset}: {error}') from error
  if len(content) < size:
    raise BadExampleError(f'{path} has become shorter: it ends before byte {offset + size}')
  return content


def _object(encoded: bytes, path: str) -> dict[str, Any]:
  try:
    fields = json.loads(encoded)
  except (ValueError, RecursionError) as error:
    raise BadExampleError(f'{path}: a json file does not parse: {error}') from error
  if not isinstance(fields, dict):
    raise BadExampleError(f'{path}: a json file holds a {type(fields).__name__}, no object')
  return fields


def _scan(path: str) -> dict[str, np.ndarray]:
  """Where the examples of a shard lie.

  Returns:
    'places', uint32 [N, 3, 2]: offset, in blocks, and size, in bytes, of image, text and JSON,
    zeros for none;
    'cut': the byte at which a damaged archive stops making sense, 0 for a whole one.

  Raises:
    ValueError: if the first block is no tar header.
  """
  system, plain = files.open_system(path)
  with system.open(plain, 'rb') as file:
    try:
      # 'r:' refuses what is compressed, which has no places to read from.
      with tarfile.open(fileobj=file, mode='r:') as archive:
        places = _find_places(archive, system.size(plain))
        file.seek(archive.offset)
        # An archive ends in zeros.
        cut = 0 if file.read(_BLOCK) == bytes(_BLOCK) else archive.offset
    except tarfile.ReadError as error:
      raise ValueError(f'{path} is no tar shard: {error}; unpack it if it is compressed') from error
  # An example that lacks a file which the first has lost it to the cut.
  if cut and places and not np.array_equal(places[-1][:, 0] > 0, places[0][:, 0] > 0):
    places.pop()
  blocks = np.array(places, np.int64).reshape(-1, len(_KINDS), 2) // _UNITS
  # What has more bytes than that is no picture, cut or not.
  return {'places': np.minimum(blocks, 2**32 - 1).astype(np.uint32), 'cut': np.int64(cut)}


def _find_places(archive: tarfile.TarFile, end: int) -> list[np.ndarray]:
  """[3, 2] for each run of files of one name, in an archive of `end` bytes."""
  names, places = [], []
  for name, kind, offset, size in _members(archive, end):
    if names[-1:] != [name]:
      names.append(name)
      places.append(np.zeros((len(_KINDS), 2), np.int64))
    places[-1][kind] = offset, size
  return places


def _members(archive: tarfile.TarFile, end: int) -> Iterator[tuple[str, int, int, int]]:
  """Name up to the first dot, kind, offset and size of each whole file, up to any damage."""
  kinds = {
    extension: kind for kind, extensions in enumerate(_KINDS.values()) for extension in extensions
  }
  try:
    for member in archive:
      archive.members.clear()  # Else the names of all files of a shard stay in memory.
      match = re.fullmatch(r'((?:.*/)?[^./][^./]*)\.([^/]*)', member.name)
      whole = member.offset_data + member.size <= end
      if member.isfile() and whole and match and match[2].lower() in kinds:
        yield match[1], kinds[match[2].lower()], member.offset_data, member.size
  except tarfile.ReadError:
    return


def write(path: str, records: Iterable[Mapping[str, Any]]) -> None:
  """Writes examples to a shard, the same bytes for the same examples.

  Args:
    path: of the shard, on a disk.
    records: each with a picture's bytes as `image` and a number as `id`, which names its files.

  Raises:
    TypeError: if a field cannot be written as JSON.
  """
  with (
    files.whole(path) as partial,
    tarfile.open(partial, 'w', format=tarfile.USTAR_FORMAT) as archive,
  ):
    for record in records:
      fields = {name: value for name, value in record.items() if name not in ('id', 'image')}
      parts = {images.file_type(record['image']): record['image']}
      if isinstance(fields.get('caption'), str):
        parts['txt'] = fields.pop('caption').encode()
      if fields or 'txt' not in parts:
        parts['json'] = json.dumps(fields, ensure_ascii=False, default=plain).encode()
      for extension, content in parts.items():
        member = tarfile.TarInfo(f'{record["id"]:09}.{extension}')
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
