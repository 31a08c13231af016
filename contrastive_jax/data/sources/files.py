"""Files, local or in a bucket: patterns, range reads, and indices of scanned files.

Paths are fsspec's: `gs://` needs the package gcsfs, `s3://` needs s3fs. Credentials and endpoints
come from the environment and ~/.config/fsspec, see
https://filesystem-spec.readthedocs.io/en/latest/features.html#configuration. With
'simplecache::s3://bucket/file' the whole file is copied to a disk when it is first read.
"""

import collections
import contextlib
import fcntl
import hashlib
import io
import itertools
import operator
import os
import posixpath
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
from contrastive_jax.runtime.waiting import waiting

# Threads that scan files; they mostly wait for the network.
_THREADS = 16

# Attempts per network operation, and the pause before the second one, which then doubles.
_MAX_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.5
# Errors that a retry does not resolve.
_PERMANENT_ERRORS = (
  FileNotFoundError,
  IsADirectoryError,
  NotADirectoryError,
  PermissionError,
  TypeError,
  ValueError,
)

# Limit of a read, more than an uncompressed image has: a path may lead to an endless device.
_MAX_IMAGE_BYTES = 4 * images.MAX_PIXELS

_CACHE_PREFIX = 'simplecache::'
# Protocols that fsspec chains before the path of a file: a cache, or an archive that holds it.
_CHAIN = re.compile(r'(simplecache|filecache|blockcache|cached|(zip|tar|libarchive)://.*?)::')
_PROTOCOL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')


def expand_braces(pattern: str) -> list[str]:
  """Expands the braces of a pattern as a shell does, in order.

  >>> expand_braces('{a,b}-{08..10}.tar')
  ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']

  Raises:
    ValueError: if braces are nested or unbalanced, or a range counts down.
  """
  parts = re.split(r'\{([^{}]*)\}', pattern)
  if re.search(r'[{}]', ''.join(parts[::2])):
    raise ValueError(f'{pattern!r} has nested braces, or half a pair; write out the inner ones')
  choices = [
    _choices(part) if number % 2 else [part]  # odd parts stood in braces
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
  """Returns the files of a pattern with braces and the wildcards `*` and `?`, sorted by name.

  A local file whose name equals the pattern takes precedence. Brackets are literal.

  Raises:
    ValueError: if a path without wildcards is missing, a wildcard matches no file or only some of a
      numbered set, as in '-00003-of-00008', or '::' joins paths as in open_clip.
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
    there = list(pool.map(is_file, named))
  missing = list(itertools.compress(named, map(operator.not_, there)))
  if missing:
    raise ValueError(
      f'{len(missing)} of {len(named)} files are missing, the first is {missing[0]!r}; '
      f'put them back, or name only those that are there{_hint(pattern)}'
    )
  return paths


def _glob(path: str, system: fsspec.AbstractFileSystem, plain: str) -> list[str]:
  """Returns the files that match the wildcards of a path."""
  copied = _CACHE_PREFIX if path.startswith(_CACHE_PREFIX) else ''
  if _CHAIN.match(path) and not copied:
    raise ValueError(f'{path!r} has a wildcard in a chain of protocols; use braces')
  matches = retry(path, system.glob, plain.replace('[', '[[]'), detail=True)
  found = sorted(match for match, info in matches.items() if info['type'] != 'directory')
  if not found:
    raise ValueError(f'no file matches {path!r}{_hint(path)}')
  _check_numbered(found)
  if isinstance(system, LocalFileSystem):
    return found
  return [copied + system.unstrip_protocol(match) for match in found]


def _hint(path: str) -> str:
  """Says how to write open_clip's `A::B`; '' for other paths."""
  if '::' not in path:
    return ''
  return (
    "; '::' joins no paths here: mix sources by weight, FORMAT:A*0.5+FORMAT:B*0.5, or give their "
    'paths in braces, {A,B}'
  )


def is_local(path: str) -> bool:
  """Whether a path is on a disk."""
  return not (_PROTOCOL.match(path) or _CHAIN.match(path))


def _check_numbered(paths: Sequence[str]) -> None:
  """Checks that no file of a set such as 'train-00003-of-00008.tar' is missing."""
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
  """Returns the file system of a path, and the path within it.

  Raises:
    ValueError: if the protocol is unknown or its package is not installed, the cache has no folder,
      or '::' joins paths.
  """
  if path.startswith(_CACHE_PREFIX):
    folder = fsspec.config.conf.get('simplecache', {}).get('cache_storage')
    if not folder:
      raise ValueError(
        f'{path!r} is to be copied to a disk; '
        'name a folder there in the variable FSSPEC_SIMPLECACHE_CACHE_STORAGE'
      )
    system, plain = open_system(path.removeprefix(_CACHE_PREFIX))
    # The protocol is part of the folder, as two buckets may hold the same name.
    protocol = system.protocol if isinstance(system.protocol, str) else system.protocol[0]
    return _LocalCache(fs=system, cache_storage=os.path.join(folder, protocol)), plain
  if is_local(path):
    return LocalFileSystem(), LocalFileSystem._strip_protocol(path)
  if not is_local(inner := _CHAIN.sub('', path)) and '::' in inner:
    raise ValueError(f'{path!r} is several paths{_hint(path)}')
  try:
    return fsspec.url_to_fs(path)
  except ImportError as error:
    raise ValueError(f'{path!r} needs a package: {error}') from error


class _LocalCache(SimpleCacheFileSystem):
  """fsspec's cache of files, with atomic copies, each made by one thread of one process."""

  def _open(self, path: str, mode: str = 'rb', **options):
    copy = os.path.join(self.storage[-1], self._mapper(self._strip_protocol(path)))
    if mode == 'rb' and not os.path.exists(copy):
      with open(f'{copy}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(copy):
          with atomic_write(copy) as partial:
            self.fs.get_file(path, partial)
    return super()._open(path, mode, **options)


def retry(path: str, act: Callable, *arguments, **options) -> Any:
  """Calls `act` on the arguments, and retries a few times with growing pauses if it fails.

  Args:
    path: the path that `act` works on, for messages.
    act: a function.
    *arguments: its arguments.
    **options: its keyword arguments.

  Raises:
    OSError: if every attempt failed, or the error is permanent.
    ValueError: raised by `act`.
  """
  with waiting(f'reading {path}'):
    return _attempt(path, act, *arguments, **options)


def _attempt(path: str, act: Callable, *arguments, **options) -> Any:
  for attempt in range(_MAX_ATTEMPTS):
    try:
      return act(*arguments, **options)
    except _PERMANENT_ERRORS:
      raise
    except Exception as error:  # aiohttp, botocore and gcsfs raise their own
      logging.warning('%s, time %d of %d: %r', path, attempt + 1, _MAX_ATTEMPTS, error)
      if attempt + 1 == _MAX_ATTEMPTS or _refused(error):
        raise OSError(f'{path} failed {attempt + 1} times, at last with {error!r}') from error
    time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)


def _refused(error: Exception) -> bool:
  """Whether a web server refused for good, as with 403; a busy server does not."""
  status = getattr(error, 'status', None)
  return isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)


def is_file(path: str) -> bool:
  """Whether a path is that of a file."""
  system, plain = open_system(path)
  try:
    return retry(path, system.info, plain)['type'] == 'file'
  except FileNotFoundError:
    return False


def read(path: str, offset: int = 0, size: int | None = None) -> bytes:
  """Reads `size` bytes at an offset, or the rest of the file; fewer at the end of the file.

  No file stays open between reads, so threads and forked processes share no position.

  Raises:
    OSError: if the file is missing or cannot be read.
  """
  if is_local(path):  # fsspec's overhead would exceed the cost of a local read
    return retry(path, _read_disk, path, offset, size)
  system, plain = open_system(path)
  end = None if size is None else offset + size
  content = retry(path, system.cat_file, plain, start=offset, end=end)
  if size is not None and len(content) > size:
    raise OSError(f'{path} gives {len(content)} bytes for {size}: its server knows no ranges')
  return content


def _read_disk(path: str, offset: int, size: int | None) -> bytes:
  info = os.stat(path)
  if not stat.S_ISREG(info.st_mode):  # a pipe would block, and a device has no end
    raise FileNotFoundError(f'{path} is no file')
  rest = max(info.st_size - offset, 0)
  with open(path, 'rb') as file:
    file.seek(offset)
    return file.read(rest if size is None else min(size, rest))


def read_image(path: str) -> bytes:
  """Reads an image file.

  Raises:
    BadExampleError: if the file cannot be read.
  """
  try:
    return read(path, 0, _MAX_IMAGE_BYTES)
  except (OSError, ValueError) as error:
    raise BadExampleError(f'the image {path} cannot be read: {error}') from error


def folders(path: str) -> list[str]:
  """Returns the names of the folders in a folder; none where it cannot be listed."""
  system, plain = open_system(path)
  try:
    entries = retry(path, system.ls, plain, detail=True)
  except (OSError, NotImplementedError):
    return []
  return sorted(
    posixpath.basename(each['name'].rstrip('/')) for each in entries if each['type'] == 'directory'
  )


def beside(path: str, name: str) -> str:
  """Returns the path of a file that another one names: absolute, or relative to its folder."""
  return name if '://' in name else posixpath.join(posixpath.dirname(path), name)


def locate(ends: np.ndarray, number: int) -> tuple[int, int]:
  """Returns the file of an example and its row there, given the cumulative counts `ends`.

  >>> locate(np.array([3, 3, 5]), 3)
  (2, 0)

  Raises:
    IndexError: if the number is out of range.
  """
  if not 0 <= number < ends[-1]:
    raise IndexError(number)
  file = int(np.searchsorted(ends, number, side='right'))
  return file, number - int(ends[file - 1]) if file else number


def scan_all(
  paths: Sequence[str], scan: Callable[[str], dict[str, np.ndarray]], kind: str
) -> list[dict[str, np.ndarray]]:
  """Scans files once; `FILE.index.npz` stores the result of each, where it can be written.

  A warning says how many cannot be stored: then each process scans these files at each start.

  Args:
    paths: the files.
    scan: path -> arrays by name.
    kind: name of the kind of index; an index stored under another name is ignored.

  Returns:
    The arrays of each file.

  Raises:
    ValueError: raised by `scan`.
  """
  unsaved: list[tuple[str, Exception]] = []
  found: list[dict[str, np.ndarray]] = []
  progress = waiting(lambda: f'indexing {paths[0]} and others, {len(found)} of {len(paths)} done')
  with futures.ThreadPoolExecutor(_THREADS) as pool, progress:
    for arrays in pool.map(lambda path: _scan_once(path, scan, kind, unsaved), paths):
      found.append(arrays)
  if unsaved:
    path, error = min(unsaved, key=operator.itemgetter(0))
    logging.warning(
      'the indices of %d of %d files cannot be stored beside them, the first is that of %s: %s; '
      'every process scans these files at each start. Open the data once where they can be written',
      *(len(unsaved), len(paths), path, error),
    )
  return found


def _scan_once(
  path: str, scan, kind: str, unsaved: list[tuple[str, Exception]]
) -> dict[str, np.ndarray]:
  system, plain = open_system(path)
  info = retry(path, system.info, plain)
  # File systems report the version of a file under various names.
  reported = [info.get(key) for key in ('size', 'mtime', 'LastModified', 'etag', 'ETag', 'md5Hash')]
  version = np.frombuffer(hashlib.sha256(str([kind, reported]).encode()).digest(), np.uint8)
  index = f'{plain}.index.npz'
  try:
    with np.load(io.BytesIO(retry(index, system.cat_file, index))) as kept:
      if np.array_equal(kept['version'], version):
        return {name: kept[name] for name in kept.files if name != 'version'}
  except Exception as error:  # a missing or damaged index is rebuilt
    logging.debug('no index of %s: %r', path, error)
  found = _attempt(path, scan, path)  # `scan_all` says how far it is
  buffer = io.BytesIO()
  np.savez_compressed(buffer, version=version, **found)
  try:
    _write_index(system, index, buffer.getvalue())
  except Exception as error:  # read-only file systems raise various errors
    unsaved.append((path, error))
  return found


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[str]:
  """Gives a temporary local path to write to, and then moves it to `path` atomically."""
  partial = f'{path}.{os.getpid()}.partial'
  try:
    yield partial
    os.replace(partial, path)
  finally:
    with contextlib.suppress(OSError):
      os.unlink(partial)


def _write_index(system: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
  if not isinstance(system, LocalFileSystem):
    system.pipe_file(path, content)  # an upload to a bucket is atomic
    return
  with atomic_write(path) as partial, open(partial, 'wb') as file:
    file.write(content)
