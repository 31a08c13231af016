"""Files, local or in a bucket: patterns, reads at a place, and what is kept of a scan.

Paths are fsspec's: `gs://` needs the package gcsfs, `s3://` needs s3fs. Credentials and endpoints
are those of the environment and of ~/.config/fsspec, see
https://filesystem-spec.readthedocs.io/en/latest/features.html#configuration. In
'simplecache::s3://bucket/file' the file is copied to a disk whole, the first time that it is read.
"""

import collections
import contextlib
import fcntl
import hashlib
import io
import itertools
import operator
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import fsspec
import numpy as np
from absl import logging
from fsspec.implementations.cached import SimpleCacheFileSystem
from fsspec.implementations.local import LocalFileSystem

from contrastive_jax.data import images
from contrastive_jax.data.sources.source import BadExampleError

# What scans wait for is the network.
_THREADS = 16

# Of what a network does, and the seconds before the second time; then twice as long each time.
_TRIES = 5
_PAUSE = 0.5
# Seconds after which a long scan says how far it is.
_SILENCE = 30
# Asking again would not help.
_FINAL = (
  FileNotFoundError,
  IsADirectoryError,
  NotADirectoryError,
  PermissionError,
  TypeError,
  ValueError,
)

# More than a picture may have, were it not compressed; what a path leads to may be endless.
_LARGEST_IMAGE = 4 * images.MAX_PIXELS  # bytes

_COPIED = 'simplecache::'
# What fsspec chains before the path of a file: copies of it, or the archive that it lies in.
_LINK = re.compile(r'(simplecache|filecache|blockcache|cached|(zip|tar|libarchive)://.*?)::')
_PROTOCOL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')


def expand_braces(pattern: str) -> list[str]:
  """All that a pattern of the shell's braces stands for, in its order.

  >>> expand_braces('{a,b}-{08..10}.tar')
  ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']

  Raises:
    ValueError: if braces are nested, one lacks its other, or a range counts down.
  """
  parts = re.split(r'\{([^{}]*)\}', pattern)
  if re.search(r'[{}]', ''.join(parts[::2])):
    raise ValueError(f'{pattern!r} has nested braces, or half a pair; write out the inner ones')
  choices = [
    _choices(part) if number % 2 else [part]  # Every other part stood in braces.
    for number, part in enumerate(parts)
  ]
  return [''.join(choice) for choice in itertools.product(*choices)]


def _choices(braced: str) -> list[str]:
  if match := re.fullmatch(r'(\d+)\.\.(\d+)', braced):
    first, last = match.groups()
    if int(first) > int(last):
      raise ValueError(f'{{{braced}}} counts down; write {{{last}..{first}}}')
    width = len(first) if first.startswith('0') else 0
    return [f'{number:0{width}}' for number in range(int(first), int(last) + 1)]
  return braced.split(',') if ',' in braced else [f'{{{braced}}}']


def find(pattern: str) -> list[str]:
  """The files of a pattern with braces and the wildcards `*`, `?`, in the order of their names.

  A file on a disk whose name is the pattern, letter by letter, is that file alone. Brackets are
  letters like others.

  Raises:
    ValueError: if a path without wildcards is no file, or one with them matches none, or not all
      of names that count, as in '-00003-of-00008', or '::' joins paths as open_clip does.
  """
  literal = is_local(pattern) and os.path.isfile(os.path.expanduser(pattern))
  paths, named = [], []
  for path in [pattern] if literal else expand_braces(pattern):
    system, plain = open_system(path)
    if re.search(r'[*?]', plain) and not literal:
      paths += _glob(path, system, plain)
    else:
      named.append(path)
      paths.append(plain if isinstance(system, LocalFileSystem) else path)
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    there = list(pool.map(_is_file, named))
  missing = list(itertools.compress(named, map(operator.not_, there)))
  if missing:
    raise ValueError(
      f'{len(missing)} of {len(named)} files are missing, the first is {missing[0]!r}; '
      f'put them back, or name only those that are there{_hint(pattern)}'
    )
  return paths


def _glob(path: str, system: fsspec.AbstractFileSystem, plain: str) -> list[str]:
  """The files that the wildcards of a path match."""
  copied = _COPIED if path.startswith(_COPIED) else ''
  if _LINK.match(path) and not copied:
    raise ValueError(f'{path!r} has a wildcard in a chain of protocols; use braces')
  matches = persist(path, system.glob, plain.replace('[', '[[]'), detail=True)
  found = sorted(match for match, info in matches.items() if info['type'] != 'directory')
  if not found:
    raise ValueError(f'no file matches {path!r}{_hint(path)}')
  _check_numbered(found)
  if isinstance(system, LocalFileSystem):
    return found
  return [copied + system.unstrip_protocol(match) for match in found]


def _hint(path: str) -> str:
  """What to write in place of open_clip's `A::B`."""
  if '::' not in path:
    return ''
  return (
    "; '::' joins no paths here: mix sources by weight, FORMAT:A*0.5+FORMAT:B*0.5, or give their "
    'paths in braces, {A,B}'
  )


def is_local(path: str) -> bool:
  """Whether a path is one on a disk, whatever letters its name has."""
  return not (_PROTOCOL.match(path) or _LINK.match(path))


def _check_numbered(paths: Sequence[str]) -> None:
  """Of names such as 'train-00003-of-00008.tar', a wildcard must not pass over missing ones."""
  sets = collections.Counter(
    (re.sub(match[0], '', path), int(match[1]))
    for path in paths
    if (match := re.search(r'-\d{5}-of-(\d{5})', path))
  )
  for (_, count), found in sets.items():
    if found != count:
      raise ValueError(
        f'{found} of {count} shards are there, the first is {paths[0]!r}; put the others back, or '
        'finish their conversion'
      )


def open_system(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
  """The file system of a path, and the path in it.

  Raises:
    ValueError: if its protocol is unknown or needs a package that is not installed, nothing says
      where copies are kept, or '::' joins paths.
  """
  if path.startswith(_COPIED):
    folder = fsspec.config.conf.get('simplecache', {}).get('cache_storage')
    if not folder:
      raise ValueError(
        f'{path!r} is to be copied to a disk; '
        'name a folder there in the variable FSSPEC_SIMPLECACHE_CACHE_STORAGE'
      )
    system, plain = open_system(path.removeprefix(_COPIED))
    # Two protocols may know one name.
    protocol = system.protocol if isinstance(system.protocol, str) else system.protocol[0]
    return _Copies(fs=system, cache_storage=os.path.join(folder, protocol)), plain
  if is_local(path):
    return LocalFileSystem(), LocalFileSystem._strip_protocol(path)
  if not is_local(inner := _LINK.sub('', path)) and '::' in inner:
    raise ValueError(f'{path!r} is several paths{_hint(path)}')
  try:
    return fsspec.url_to_fs(path)
  except ImportError as error:
    raise ValueError(f'{path!r} needs a package: {error}') from error


class _Copies(SimpleCacheFileSystem):
  """fsspec's copies, each there whole or not at all, and made by one thread of one process."""

  def _open(self, path: str, mode: str = 'rb', **options):
    copy = os.path.join(self.storage[-1], self._mapper(self._strip_protocol(path)))
    if mode == 'rb' and not os.path.exists(copy):
      with open(f'{copy}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(copy):
          with whole(copy) as partial:
            self.fs.get_file(path, partial)
    return super()._open(path, mode, **options)


def persist(path: str, act: Callable, *arguments, **options) -> Any:
  """What `act` of the arguments gives; what it asks of `path` and fails is asked again a few times.

  Raises:
    OSError: if it failed each time, or asking again would not help.
    ValueError: what it raises.
  """
  for attempt in range(_TRIES):
    try:
      return act(*arguments, **options)
    except _FINAL:
      raise
    except Exception as error:  # Each file system has its own: aiohttp's, botocore's, gcsfs's.
      logging.warning('%s, time %d of %d: %r', path, attempt + 1, _TRIES, error)
      if attempt + 1 == _TRIES or _refused(error):
        raise OSError(f'{path} failed {attempt + 1} times, at last with {error!r}') from error
    time.sleep(_PAUSE * 2**attempt)


def _refused(error: Exception) -> bool:
  """Whether a web server says no, as 403, and would again; not that it is busy."""
  status = getattr(error, 'status', None)
  return isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)


def _is_file(path: str) -> bool:
  system, plain = open_system(path)
  try:
    return persist(path, system.info, plain)['type'] == 'file'
  except FileNotFoundError:
    return False


def read(path: str, offset: int = 0, size: int | None = None) -> bytes:
  """Reads `size` bytes at a place of a file, or all from it on; fewer where the file ends.

  Nothing stays open between reads, so threads and forked processes share no position.

  Raises:
    OSError: if the file is not there or cannot be read.
  """
  if is_local(path):  # There fsspec's own work would cost more than the reading.
    return persist(path, _read_disk, path, offset, size)
  system, plain = open_system(path)
  end = None if size is None else offset + size
  content = persist(path, system.cat_file, plain, start=offset, end=end)
  if size is not None and len(content) > size:
    raise OSError(f'{path} gives {len(content)} bytes for {size}: its server knows no ranges')
  return content


def _read_disk(path: str, offset: int, size: int | None) -> bytes:
  info = os.stat(path)
  if not stat.S_ISREG(info.st_mode):  # A pipe would be waited for, and a device has no end.
    raise FileNotFoundError(f'{path} is no file')
  rest = max(info.st_size - offset, 0)
  with open(path, 'rb') as file:
    file.seek(offset)
    return file.read(rest if size is None else min(size, rest))


def read_image(path: str) -> bytes:
  """The bytes of an image in a file of its own.

  Raises:
    BadExampleError: if it cannot be read.
  """
  try:
    return read(path, 0, _LARGEST_IMAGE)
  except (OSError, ValueError) as error:
    raise BadExampleError(f'the image {path} cannot be read: {error}') from error


def locate(ends: np.ndarray, number: int) -> tuple[int, int]:
  """The file of an example and its row there, where `ends` counts those up to each file's last.

  >>> locate(np.array([3, 3, 5]), 3)
  (2, 0)

  Raises:
    IndexError: if there is no such example.
  """
  if not 0 <= number < ends[-1]:
    raise IndexError(number)
  file = int(np.searchsorted(ends, number, side='right'))
  return file, number - int(ends[file - 1]) if file else number


def scan_all(
  paths: Sequence[str], scan: Callable[[str], dict[str, np.ndarray]], kind: str
) -> list[dict[str, np.ndarray]]:
  """Scans files, once: `FILE.index.npz` keeps what a scan finds, where that can be written.

  Args:
    paths: the files.
    scan: a function of a path.
    kind: names what `scan` finds; what was kept under another name is not used.

  Returns:
    The arrays that `scan` gives, for each file.

  Raises:
    ValueError: what `scan` raises.
  """
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    found, said = [], time.monotonic()
    for arrays in pool.map(lambda path: _scan_once(path, scan, kind), paths):
      found.append(arrays)
      if time.monotonic() > said + _SILENCE:
        said = time.monotonic()
        logging.warning('%d of %d files are indexed', len(found), len(paths))
    return found


def _scan_once(path: str, scan, kind: str) -> dict[str, np.ndarray]:
  system, plain = open_system(path)
  info = persist(path, system.info, plain)
  # Whatever the file system tells of the file's version.
  told = [info.get(key) for key in ('size', 'mtime', 'LastModified', 'etag', 'ETag', 'md5Hash')]
  version = np.frombuffer(hashlib.sha256(str([kind, told]).encode()).digest(), np.uint8)
  index = f'{plain}.index.npz'
  try:
    with np.load(io.BytesIO(persist(index, system.cat_file, index))) as kept:
      if np.array_equal(kept['version'], version):
        return {name: kept[name] for name in kept.files if name != 'version'}
  except Exception as error:  # None yet, or not whole: it is made anew.
    logging.debug('no index of %s: %r', path, error)
  found = persist(path, scan, path)
  buffer = io.BytesIO()
  np.savez_compressed(buffer, version=version, **found)
  try:
    _write_index(system, index, buffer.getvalue())
  except Exception as error:  # Read-only file systems have many words for no.
    logging.info('the index of %s is kept in memory alone: %s', path, error)
  return found


@contextlib.contextmanager
def whole(path: str) -> Iterator[str]:
  """A path on a disk to write to; what was written is then there whole, or not at all."""
  partial = f'{path}.{os.getpid()}.partial'
  try:
    yield partial
    os.replace(partial, path)
  finally:
    with contextlib.suppress(OSError):
      os.unlink(partial)


def _write_index(system: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
  if not isinstance(system, LocalFileSystem):
    system.pipe_file(path, content)  # A bucket's object appears whole.
    return
  with whole(path) as partial, open(partial, 'wb') as file:
    file.write(content)
