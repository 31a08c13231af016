"""WebDataset: tar shards in which the files of an example share a name up to its first dot.

A shard's headers are read once; then any example is one read, as its files lie
together.
"""

import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from absl import logging

from contrastive_jax.data import images
from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.source import BadExampleError, plain

_KINDS = {'image': images.ENDINGS, 'text': ('txt',), 'fields': ('json',)}
_KIND_OF = {ending: kind for kind, endings in enumerate(_KINDS.values()) for ending in endings}
_BLOCK = 512  # bytes: tar's unit
_UNITS = np.array([_BLOCK, 1])  # bytes: of an offset and of a size, as an index keeps them
_HELP = (
  f'an example is an image ({", ".join(images.ENDINGS)}) and a txt or json of the same name, one '
  'after the other: sort the files (tar --sort=name) where they lie apart; a label, such as a '
  'cls, goes into the json, {"label": "cat"}'
)


class WebDataset:
  """Examples of tar shards by number, in the shards' order.

  Of a shard that is cut off, the examples before the cut are there, and the log says so, as it does
  of files that belong to no example.

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
    indices = files.scan_all(paths, _scan, 'webdataset of samples')
    _report(paths, indices)
    self._places = [index['places'] for index in indices]
    self._strays = [dict(index['strays'].tolist()) for index in indices]
    self._ends = np.cumsum([len(places) for places in self._places])
    self._lines_told = False
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
    if not places.any():
      raise BadExampleError(f'{self.where(number)} has no file of a known ending; {_HELP}')
    first = int(places[places[:, 0] > 0, 0].min())
    content = _read(path, first, int(places.sum(1).max()) - first)
    parts = {
      kind: content[offset - first : offset - first + size]
      for kind, (offset, size) in zip(_KINDS, places.tolist(), strict=True)
      if offset  # No file's content starts where its header would.
    }
    if 'image' not in parts or not parts.keys() & {'text', 'fields'}:
      raise BadExampleError(f'{self.where(number)} has only {sorted(parts)}; {_HELP}')
    record = _object(parts['fields'], path) if 'fields' in parts else {}
    record['image'] = parts['image']
    if 'text' in parts:
      record['caption'] = parts['text']
      if not self._lines_told and b'\n' in parts['text'].strip():
        self._tell_lines(number, parts['text'])
    return record

  def _tell_lines(self, number: int, text: bytes) -> None:
    self._lines_told = True
    logging.warning(
      '%s: its txt has %d lines, which are one caption, here and wherever else. If each line is a '
      'caption, as in the retrieval sets of CLIP_benchmark, give a json in place of the txt, '
      '{"caption": ["one", "another"]}',
      self.where(number),
      len(text.strip().splitlines()),
    )

  def where(self, number: int) -> str:
    """The shard, and the name of the image, or of what else the example has, and its place."""
    shard, row = files.locate(self._ends, number)
    path, offsets = self._paths[shard], self._places[shard][row][:, 0].astype(int)
    block = next(filter(None, offsets.tolist()), None) or self._strays[shard][row]
    try:
      header = files.read(path, (block - 1) * _BLOCK, _BLOCK)
      name = tarfile.TarInfo.frombuf(header, 'utf-8', 'replace').name
    except (OSError, tarfile.HeaderError):
      name = 'a file'
    return f'{path}: {name} (byte {block * _BLOCK})'


def _report(paths: Sequence[str], indices: Sequence[Mapping[str, np.ndarray]]) -> None:
  """Logs what of the shards belongs to no example."""
  passed = 0
  for path, index in zip(paths, indices, strict=True):
    if index['cut']:
      logging.warning(
        '%s is cut off or damaged before byte %d: its %d whole examples are used',
        path,
        index['cut'],
        len(index['places']),
      )
    elif not len(index['places']):
      logging.warning('%s holds no example', path)
    if index['passed'] and not passed:
      first = f'{path}: {index["first"]}'
    passed += int(index['passed'])
  if passed:
    logging.warning('%d files are passed over, the first is %s; %s', passed, first, _HELP)


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


class _File(NamedTuple):
  """A member of a tar: `key` is its name up to the first dot, '' for none, `ending` the rest."""

  name: str
  key: str
  ending: str
  offset: int
  size: int


def _scan(path: str) -> dict[str, np.ndarray]:
  """Where the examples of a shard lie.

  Returns:
    'places', uint32 [N, 3, 2]: offset, in blocks, and size, in bytes, of image, text and JSON,
    zeros for none;
    'strays', uint32 [M, 2]: an example that has none of them, and the block of its first file;
    'passed' and 'first': how many files belong to no example, and the name of the first;
    'cut': the byte at which a damaged archive stops making sense, 0 for a whole one.

  Raises:
    ValueError: if the first block is no tar header.
  """
  system, plain = files.open_system(path)
  samples, start, cut = _Samples(), 0, 0
  with system.open(plain, 'rb') as file:
    while start is not None:  # Archives that were joined lie one after another.
      first = start
      file.seek(start)
      try:
        # 'r:' refuses what is compressed, which has no places to read from.
        with tarfile.open(fileobj=file, mode='r:') as archive:
          for run in _runs(_members(archive, system.size(plain))):
            samples.add(run)
      except tarfile.ReadError as error:
        if start == 0:
          raise ValueError(
            f'{path} is no tar shard: {error}; unpack it if it is compressed'
          ) from error
        start, cut = None, start
      else:
        start, cut = _after(file, archive.offset)
  if cut > first:
    samples.drop_last_if_cut()
  return samples.arrays() | {'cut': np.int64(cut)}


def _after(file: BinaryIO, offset: int) -> tuple[int | None, int]:
  """Where another archive begins behind one that ends at an offset, and where damage does."""
  file.seek(offset)
  if file.read(_BLOCK) != bytes(_BLOCK):
    return None, offset  # An archive ends in zeros.
  while zeros := file.read(2**16):
    if rest := zeros.lstrip(b'\0'):
      return (file.tell() - len(rest)) // _BLOCK * _BLOCK, 0
  return None, 0


def _members(archive: tarfile.TarFile, end: int) -> Iterator[_File]:
  """The members up to any damage, folders left out, of an archive in a file of `end` bytes."""
  try:
    for member in archive:
      archive.members.clear()  # Else the names of all files of a shard stay in memory.
      if member.isdir() or member.offset_data + member.size > end:
        continue
      match = re.fullmatch(r'((?:.*/)?[^./][^./]*)\.([^/]*)', member.name)
      key, ending = match.groups() if match else ('', '')
      if not member.isfile():  # A link has no content of its own.
        ending += ' of a link'
      yield _File(member.name, key, ending.lower(), member.offset_data, member.size)
  except tarfile.ReadError:
    return


def _runs(members: Iterable[_File]) -> Iterator[list[_File]]:
  """Members of one key that follow each other, and those without a key among them.

  An ending that comes again begins another run, as in open_clip.
  """
  run, key, endings = [], '', set()
  for file in members:
    if file.key:
      if key and (file.key != key or file.ending in endings):
        yield run
        run, endings = [], set()
      key = file.key
      endings.add(file.ending)
    run.append(file)
  if run:
    yield run


class _Samples:
  """What a scan has found so far; see `_scan`."""

  def __init__(self):
    self._places, self._strays = [], []
    self._passed, self._first = 0, ''

  def add(self, run: list[_File]) -> None:
    """Adds the members of one key.

    Where none has a known ending behind the first dot, as of '4.05 track.png', the name ends at the
    last dot.
    """
    known = [file for file in run if file.ending in _KIND_OF]
    parts = [known]
    if not known:
      dotted = (file for file in run if file.ending.rpartition('.')[2] in _KIND_OF)
      parts = itertools.groupby(dotted, lambda file: file.name.rpartition('.')[0])
      parts = [list(part) for _, part in parts]
    used = [file for part in parts for file in self._add(part)]
    named = next((file for file in run if file.key), None)
    if named and not used:
      self._strays.append((len(self._places), named.offset // _BLOCK))
      self._places.append(np.zeros((len(_KINDS), 2), np.int64))
    elif len(used) < len(run):
      self._first = self._first or next(file.name for file in run if file not in used)
      self._passed += len(run) - len(used)

  def _add(self, part: list[_File]) -> list[_File]:
    """Adds an example; of two files of a kind the first is taken."""
    taken = {}
    for file in part:
      taken.setdefault(_KIND_OF[file.ending.rpartition('.')[2]], file)
    if taken:
      self._places.append(np.zeros((len(_KINDS), 2), np.int64))
    for kind, file in taken.items():
      self._places[-1][kind] = file.offset, file.size
    return [*taken.values()]

  def drop_last_if_cut(self) -> None:
    """Drops an example that lacks a file which the first has: it has lost it to a cut."""
    places = self._places
    if places and not np.array_equal(places[-1][:, 0] > 0, places[0][:, 0] > 0):
      places.pop()
      self._strays = [stray for stray in self._strays if stray[0] < len(places)]

  def arrays(self) -> dict[str, np.ndarray]:
    blocks = np.array(self._places, np.int64).reshape(-1, len(_KINDS), 2) // _UNITS
    return {
      # What has more bytes than that is no picture, cut or not.
      'places': np.minimum(blocks, 2**32 - 1).astype(np.uint32),
      'strays': np.array(self._strays, np.uint32).reshape(-1, 2),
      'passed': np.int64(self._passed),
      'first': np.array(self._first),
    }


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
