"""Folders in a bucket, `gs://` or `s3://`: paths, checks, growing files, and Orbax's storage.

Files go through fsspec, with the packages gcsfs and s3fs, and arrays through TensorStore. Both find
credentials in the cloud's usual environment; an endpoint that is set for fsspec, or for the
cloud's own tools, is given to TensorStore too.
"""

import importlib.util
import os
import pathlib
import shutil
import tempfile
import time
import typing
import uuid
from typing import Any

import fsspec
from absl import logging
from etils import epath

from contrastive_jax.runtime.waiting import waiting

# The file by which Orbax marks a complete checkpoint in a bucket.
COMMITTED = 'commit_success.txt'
# Seconds between copies of files that grow, and the share of the time that copies may take.
_COPY_SECONDS, _COPY_SHARE = 30.0, 0.05

_PACKAGES = {'gs': 'gcsfs', 's3': 's3fs'}


def is_bucket(path: str | os.PathLike) -> bool:
  """Whether a path is in a bucket."""
  return os.fspath(path).partition('://')[0] in _PACKAGES


def open_path(path: str | os.PathLike) -> pathlib.Path:
  """Returns the path of a folder, local or in a bucket, and prepares fsspec and Orbax for it.

  Raises:
    ValueError: if it is a URL of another kind, or needs a package that is not installed.
  """
  path = os.fspath(path)
  scheme, url, _ = path.partition('://')
  if not url:
    return pathlib.Path(path)
  if scheme not in _PACKAGES:
    raise ValueError(
      f'workdir {path} is a {scheme}:// URL; use gs://BUCKET/RUN, s3://BUCKET/RUN, or a local or '
      'mounted folder'
    )
  if importlib.util.find_spec(package := _PACKAGES[scheme]) is None:
    raise ValueError(f'workdir {path} needs the package {package}: pip install {package}')
  # Without this etils would take TensorFlow where it is installed, which has its own settings.
  os.environ.setdefault('EPATH_USE_TF', 'false')
  for name in ('gs', 'gcs', 's3'):
    # TensorStore writes behind fsspec's back.
    fsspec.config.conf.setdefault(name, {}).setdefault('use_listings_cache', False)
  (_prepare_gs if scheme == 'gs' else _prepare_s3)()
  # It has the methods of `pathlib.Path` that are used here.
  return typing.cast(pathlib.Path, _BucketPath(path.rstrip('/')))


class _BucketPath(type(epath.Path('gs://bucket'))):  # type: ignore[misc]
  """A path of etils, which is absolute, and renames folders by copying their objects."""

  def absolute(self):
    """Returns the path."""
    return self

  def resolve(self, strict: bool = False):
    """Returns the path."""
    return self

  def rename(self, target):
    """Copies the objects of a folder to another, and deletes them here."""
    system = system_of(self)
    source, copy = (system._strip_protocol(str(path)) for path in (self, target))
    for path in system.find(source):
      system.cp_file(path, copy + path.removeprefix(source))
    system.rm(source, recursive=True)
    return target


def system_of(path: str | os.PathLike) -> fsspec.AbstractFileSystem:
  """Returns the file system of a path in a bucket."""
  return fsspec.filesystem(os.fspath(path).partition('://')[0])


def check_writable(folder: pathlib.Path) -> None:
  """Writes an object to a folder in a bucket, and deletes it.

  Raises:
    ValueError: if that fails: without the bucket, credentials or the permission.
  """
  probe = f'{folder}/writable_{uuid.uuid4().hex}'
  bucket = '/'.join(str(folder).split('/')[:3])
  try:
    with waiting(f'asking whether {folder} can be written'):
      system = system_of(folder)
      system.pipe_file(probe, b'')
      system.rm_file(probe)
  except FileNotFoundError as error:
    raise ValueError(f'workdir {folder}: there is no bucket {bucket}; create it') from error
  except Exception as error:  # botocore, aiohttp and gcsfs raise their own
    login = {
      'gs': 'gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS',
      's3': 'aws configure, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
    }
    raise ValueError(
      f'workdir {folder} cannot be written: {type(error).__name__}: {error}. Needed are permission '
      f'to read, write, list and delete objects, and credentials: '
      f'{login[str(folder).partition("://")[0]]}'
    ) from error


class Mirror:
  """A folder for files that grow. Objects cannot, so those of a bucket are copied there.

  Attributes:
    local: where to write: the folder itself, or for a bucket a temporary one.
    remote: whether the folder is in a bucket.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder, self._copied = folder, {}
    self.remote = is_bucket(folder)
    self.local = pathlib.Path(tempfile.mkdtemp(prefix='run_')) if self.remote else folder
    self._due = time.monotonic() + _COPY_SECONDS

  @property
  def is_due(self) -> bool:
    """Whether files should be copied, so that the bucket is not far behind."""
    return self.remote and time.monotonic() >= self._due

  def copy(self) -> None:
    """Copies the files that changed; does nothing for a local folder.

    Raises:
      OSError: if that fails.
    """
    if not self.remote:
      return
    start, system = time.monotonic(), system_of(self._folder)
    for path in sorted(path for path in self.local.rglob('*') if path.is_file()):
      name, state = path.relative_to(self.local).as_posix(), path.stat()
      version = state.st_size, state.st_mtime_ns
      if self._copied.get(name) == version:
        continue
      try:
        with waiting(f'writing {self._folder}/{name}'):
          system.put_file(str(path), f'{self._folder}/{name}')
      except Exception as error:  # as in `check_writable`
        raise OSError(f'{self._folder}/{name} cannot be written: {error!r}') from error
      self._copied[name] = version
    now = time.monotonic()
    self._due = now + max(_COPY_SECONDS, (now - start) / _COPY_SHARE)

  def copy_if_due(self) -> None:
    """Copies the files if that is due; a failure is a warning, as the next copy has all of it."""
    if not self.is_due:
      return
    try:
      self.copy()
    except OSError as error:
      self._due = time.monotonic() + _COPY_SECONDS
      logging.warning('%s; tried again later', error)

  def close(self) -> None:
    """Copies the files, and deletes the temporary folder."""
    try:
      self.copy()
    finally:
      if self.remote:
        shutil.rmtree(self.local, ignore_errors=True)


def _prepare_gs() -> None:
  if host := os.environ.get('STORAGE_EMULATOR_HOST'):
    os.environ.setdefault('TENSORSTORE_GCS_HTTP_URL', host)
    os.environ.setdefault('GOOGLE_AUTH_TOKEN_FOR_TESTING', 'anyone')


def _prepare_s3() -> None:
  options = fsspec.config.conf['s3']
  for name, variable in (('key', 'ACCESS_KEY_ID'), ('secret', 'SECRET_ACCESS_KEY')):
    if name in options:
      os.environ.setdefault(f'AWS_{variable}', options[name])
  _extend_orbax()


def _s3_storage(url: str) -> dict[str, Any]:
  """TensorStore's specification of a path in S3, with fsspec's endpoint and credentials."""
  bucket, _, path = url.removeprefix('s3://').partition('/')
  options, variables = fsspec.config.conf['s3'], os.environ
  storage: dict[str, Any] = {'driver': 's3', 'bucket': bucket, 'path': path}
  endpoint = options.get('endpoint_url') or options.get('client_kwargs', {}).get('endpoint_url')
  endpoint = endpoint or variables.get('AWS_ENDPOINT_URL_S3') or variables.get('AWS_ENDPOINT_URL')
  if endpoint:
    region = variables.get('AWS_REGION') or variables.get('AWS_DEFAULT_REGION') or 'us-east-1'
    storage |= {'endpoint': endpoint, 'aws_region': region}
  if options.get('anon'):
    storage['aws_credentials'] = {'type': 'anonymous'}
  elif 'AWS_ACCESS_KEY_ID' in variables:
    storage['aws_credentials'] = {'type': 'environment'}
  return storage


def _extend_orbax() -> None:
  """Lets Orbax open TensorStore in S3 as it does in GCS.

  Orbax 0.12 knows gs:// and disks, and has no setting for others:
  https://github.com/google/orbax/issues/872.
  """
  from orbax.checkpoint._src.path import gcs_utils
  from orbax.checkpoint._src.serialization import tensorstore_utils as storage

  names = ('_use_gcs_driver', '_normalize_path', 'build_kvstore_tspec')
  if not all(hasattr(storage, name) for name in names):
    raise ValueError(
      's3:// workdirs need orbax-checkpoint 0.12; pip install "orbax-checkpoint<0.13"'
    )
  if getattr(storage, '_knows_s3', False):
    return
  normalize, open_gs = storage._normalize_path, gcs_utils.get_kvstore_for_gcs
  storage._use_gcs_driver = is_bucket
  storage._normalize_path = lambda path: normalize(path).replace('s3:/', 's3://')
  gcs_utils.get_kvstore_for_gcs = lambda path: (
    _s3_storage(path) if path.startswith('s3://') else open_gs(path)
  )
  storage._knows_s3 = True
