"""WebDataset: tar shards in which the files of an example share a name up to its first dot.

The headers of a shard are read once. An example then takes one read, as its files are adjacent.
"""

import copy
import functools
import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
from absl import logging

from contrastive_jax.data import images
from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.read_ahead import ReadAhead
from contrastive_jax.data.sources.row_ids import whole_files
from contrastive_jax.data.sources.source import BadExampleError, plain

_BLOCK = 512  # bytes per block of a tar
_UNITS = np.array([_BLOCK, 1])  # bytes per unit of an offset and of a size in an index
_HELP = (
  f'an example is an image ({", ".join(images.ENDINGS)}) and a txt or json of the same name, one '
  'after the other: sort the files (tar --sort=name) where they lie apart; a label, such as a '
  'cls, goes into the json, {"label": "cat"}'
)


class WebDataset:
  """Examples of tar shards by number, in the shards' order.

  A truncated shard contributes its examples before the cut, with a warning. Files that belong to no
  example are counted in a warning too.

  Attributes:
    kinds: endings of the files of an example, by their kind.
    bytes: size of all files of the examples.
    row_ranges: the examples of each shard.
  """

  kinds: ClassVar = {'image': images.ENDINGS, 'text': ('txt',), 'fields': ('json',)}
  _index, _help = 'webdataset of samples', _HELP

  def __init__(self, paths: Sequence[str]):
    """Reads the headers of the shards, or their index from `SHARD.index.npz`.

    Args:
      paths: paths of the shards, uncompressed tar.

    Raises:
      ValueError: if a shard is not an uncompressed tar.
    """
    self._paths, self._reader = paths, files
    indices = files.scan_all(paths, functools.partial(_scan, kinds=self.kinds), self._index)
    _report(paths, indices, self._help)
    self._spans = [index['places'] for index in indices]
    self._strays = [dict(index['strays'].tolist()) for index in indices]
    # What some examples have, the others must have too.
    self._has_images = any(spans[:, 0, 0].any() for spans in self._spans)
    self._has_texts = any(spans[:, 1:, 0].any() for spans in self._spans)
    lengths = [len(spans) for spans in self._spans]
    self.row_ranges, self._ends = whole_files(paths, lengths), np.cumsum(lengths)
    self._warned_of_lines = False
    self.bytes = sum(int(spans[..., 1].sum(dtype=np.int64)) for spans in self._spans)

  def __len__(self) -> int:
    return int(self._ends[-1])

  def reading_ahead(self, stretch: int, stretches: int) -> 'WebDataset':
    """Returns a copy that reads stretches of shards in blocks; see `read_ahead.ReadAhead`."""
    other = copy.copy(self)
    other._reader = ReadAhead(self.bytes / len(self) * stretch, stretches)
    return other

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the encoded `image`, the text as `caption`, and the fields of the JSON.

    Raises:
      BadExampleError: if a file that other examples have is missing, a file cannot be read, or the
        JSON is not an object.
    """
    path, spans = self._locate(number)
    parts = self._read(path, spans)
    record = self._parse(number, path, parts)
    return record | {'image': parts['image']} if 'image' in parts else record

  def fields(self, number: int) -> dict[str, Any]:
    """Returns an example without its image, whose bytes are not read."""
    path, spans = self._locate(number)
    image = spans.pop('image', None)
    texts = [dict([span]) for span in spans.items()]
    if image is None or len({span > image for span in spans.values()}) == 1:
      texts = [spans]  # adjacent, so one read
    parts = {kind: part for own in texts if own for kind, part in self._read(path, own).items()}
    return self._parse(number, path, parts)

  def _locate(self, number: int) -> tuple[str, dict[str, tuple[int, int]]]:
    """Returns the shard of an example, and offset and size, in bytes, of its files by kind.

    Raises:
      BadExampleError: if a file that other examples have is missing.
    """
    shard, row = files.locate(self._ends, number)
    spans = {
      kind: (offset, size)
      for kind, (offset, size) in zip(
        self.kinds, (self._spans[shard][row] * _UNITS).tolist(), strict=True
      )
      if offset  # 0 stands for none: the content of a file follows its header
    }
    if not spans:
      raise BadExampleError(f'{self.where(number)} has no file of a known ending; {self._help}')
    no_text = not spans.keys() - {'image'}
    if (self._has_images and 'image' not in spans) or (self._has_texts and no_text):
      raise BadExampleError(f'{self.where(number)} has only {sorted(spans)}; {self._help}')
    return self._paths[shard], spans

  def _read(self, path: str, spans: Mapping[str, tuple[int, int]]) -> dict[str, bytes]:
    """Reads adjacent files of a shard at once, given their offsets and sizes by kind."""
    first = min(offset for offset, _ in spans.values())
    size = max(map(sum, spans.values())) - first
    try:
      content = self._reader.read(path, first, size)
    except OSError as error:
      raise BadExampleError(f'{path} cannot be read at byte {first}: {error}') from error
    if len(content) < size:
      raise BadExampleError(f'{path} has become shorter: it ends before byte {first + size}')
    return {
      kind: content[offset - first : offset - first + size]
      for kind, (offset, size) in spans.items()
    }

  def _parse(self, number: int, path: str, parts: Mapping[str, bytes]) -> dict[str, Any]:
    """Returns the fields of an example's json and txt."""
    record = _object(parts['fields'], path) if 'fields' in parts else {}
    if 'text' in parts:
      record['caption'] = parts['text']
      if not self._warned_of_lines and b'\n' in parts['text'].strip():
        self._warn_of_lines(number, parts['text'])
    return record

  def _warn_of_lines(self, number: int, text: bytes) -> None:
    self._warned_of_lines = True
    logging.warning(
      '%s: its txt has %d lines, which are one caption, here and wherever else. If each line is a '
      'caption, as in the retrieval sets of CLIP_benchmark, read the folder as clip_benchmark:, or '
      'give a json in place of the txt, {"caption": ["one", "another"]}',
      self.where(number),
      len(text.strip().splitlines()),
    )

  def where(self, number: int) -> str:
    """Returns the shard, and the name and offset of the image or of another file of the example."""
    shard, row = files.locate(self._ends, number)
    path, offsets = self._paths[shard], self._spans[shard][row][:, 0].astype(int)
    block = next(filter(None, offsets.tolist()), None) or self._strays[shard][row]
    try:
      header = files.read(path, (block - 1) * _BLOCK, _BLOCK)
      name = tarfile.TarInfo.frombuf(header, 'utf-8', 'replace').name
    except (OSError, tarfile.HeaderError):
      name = 'a file'
    return f'{path}: {name} (byte {block * _BLOCK})'


def _report(paths: Sequence[str], indices: Sequence[Mapping[str, np.ndarray]], hint: str) -> None:
  """Warns of truncated and empty shards, and of files that belong to no example."""
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
    logging.warning('%d files are passed over, the first is %s; %s', passed, first, hint)


def _object(encoded: bytes, path: str) -> dict[str, Any]:
  try:
    fields = json.loads(encoded)
  except (ValueError, RecursionError) as error:
    raise BadExampleError(f'{path}: a json file does not parse: {error}') from error
  if not isinstance(fields, dict):
    raise BadExampleError(f'{path}: a json file holds a {type(fields).__name__}, no object')
  return fields


class _File(NamedTuple):
  """A member of a tar: `key` is its name up to the first dot, or ''; `ending` is the rest."""

  name: str
  key: str
  ending: str
  offset: int
  size: int


def _scan(path: str, kinds: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
  """Locates the examples of a shard.

  Args:
    path: path of the shard.
    kinds: endings of the files of an example, by their kind.

  Returns:
    'places', uint32 [N, len(kinds), 2]: offset, in blocks, and size, in bytes, of the file of each
    kind, zeros for none;
    'strays', uint32 [M, 2]: an example that has none of them, and the block of its first file;
    'passed' and 'first': the number of files that belong to no example, and the name of the first;
    'cut': the byte at which a damaged archive ends, 0 for an intact one.

  Raises:
    ValueError: if the first block is not a tar header.
  """
  system, plain = files.open_system(path)
  samples, start, cut = _Samples(kinds), 0, 0
  with system.open(plain, 'rb') as file:
    while start is not None:  # several archives may be concatenated
      first = start
      file.seek(start)
      try:
        # 'r:' refuses compressed archives, which allow no random access.
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
  """Returns where the next archive starts, or None; and where damage starts, or 0."""
  file.seek(offset)
  if file.read(_BLOCK) != bytes(_BLOCK):
    return None, offset  # an intact archive ends in zeros
  while zeros := file.read(2**16):
    if rest := zeros.lstrip(b'\0'):
      return (file.tell() - len(rest)) // _BLOCK * _BLOCK, 0
  return None, 0


def _members(archive: tarfile.TarFile, end: int) -> Iterator[_File]:
  """Yields the members before any damage, without folders, of an archive of `end` bytes."""
  try:
    for member in archive:
      archive.members.clear()  # otherwise all headers of a shard stay in memory
      if member.isdir() or member.offset_data + member.size > end:
        continue
      match = re.fullmatch(r'((?:.*/)?[^./][^./]*)\.([^/]*)', member.name)
      key, ending = match.groups() if match else ('', '')
      if not member.isfile():  # a link has no content of its own
        ending += ' of a link'
      yield _File(member.name, key, ending.lower(), member.offset_data, member.size)
  except tarfile.ReadError:
    return


def _runs(members: Iterable[_File]) -> Iterator[list[_File]]:
  """Groups consecutive members with the same key; members without a key join the current group.

  A repeated ending starts a new group, as in open_clip.
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
  """The examples found by a scan so far; see `_scan`."""

  def __init__(self, kinds: Mapping[str, Sequence[str]]):
    self._count = len(kinds)
    self._kind_of = {ending: kind for kind, own in enumerate(kinds.values()) for ending in own}
    self._spans, self._strays = [], []
    self._passed, self._first = 0, ''

  def add(self, run: list[_File]) -> None:
    """Adds the members of one key.

    If none of them has a known ending after the first dot, as with '4.05 track.png', the key ends
    at the last dot.
    """
    known = [file for file in run if file.ending in self._kind_of]
    parts = [known]
    if not known:
      dotted = (file for file in run if file.ending.rpartition('.')[2] in self._kind_of)
      parts = itertools.groupby(dotted, lambda file: file.name.rpartition('.')[0])
      parts = [list(part) for _, part in parts]
    used = [file for part in parts for file in self._add(part)]
    named = next((file for file in run if file.key), None)
    if named and not used:
      self._strays.append((len(self._spans), named.offset // _BLOCK))
      self._spans.append(np.zeros((self._count, 2), np.int64))
    elif len(used) < len(run):
      self._first = self._first or next(file.name for file in run if file not in used)
      self._passed += len(run) - len(used)

  def _add(self, part: list[_File]) -> list[_File]:
    """Adds an example; of two files of one kind, the first counts."""
    taken = {}
    for file in part:
      taken.setdefault(self._kind_of[file.ending.rpartition('.')[2]], file)
    if taken:
      self._spans.append(np.zeros((self._count, 2), np.int64))
    for kind, file in taken.items():
      self._spans[-1][kind] = file.offset, file.size
    return [*taken.values()]

  def drop_last_if_cut(self) -> None:
    """Drops the last example if it lacks a file that the first has: the cut has removed it."""
    spans = self._spans
    if spans and not np.array_equal(spans[-1][:, 0] > 0, spans[0][:, 0] > 0):
      spans.pop()
      self._strays = [stray for stray in self._strays if stray[0] < len(spans)]

  def arrays(self) -> dict[str, np.ndarray]:
    blocks = np.array(self._spans, np.int64).reshape(-1, self._count, 2) // _UNITS
    return {
      # Sizes are clipped to 32 bits: such a file is no image anyway.
      'places': np.minimum(blocks, 2**32 - 1).astype(np.uint32),
      'strays': np.array(self._strays, np.uint32).reshape(-1, 2),
      'passed': np.int64(self._passed),
      'first': np.array(self._first),
    }


def write(path: str, records: Iterable[Mapping[str, Any]]) -> None:
  """Writes examples to a shard, the same bytes for the same examples.

  Args:
    path: path of the shard, on a disk.
    records: examples with an encoded `image` and a number `id`, which names their files.

  Raises:
    TypeError: if a field is not JSON serializable.
  """
  with (
    files.atomic_write(path) as partial,
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
