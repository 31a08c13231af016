"""A bucket in memory, in the place of S3."""

import importlib
import typing

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from contrastive_jax.runtime import buckets

# `fsspec.registry` is the read-only view of this module's dict.
registry = importlib.import_module('fsspec.registry')


class Memory(MemoryFileSystem):
  """S3 with one bucket."""

  protocol = 's3'
  store: typing.ClassVar[dict] = {}
  pseudo_dirs: typing.ClassVar[list] = ['']

  @classmethod
  def _strip_protocol(cls, path):
    return MemoryFileSystem._strip_protocol(str(path).replace('s3://', 'memory://'))

  def pipe_file(self, path, value, mode='overwrite', **options):
    if not self._strip_protocol(path).startswith('/bucket/'):
      raise FileNotFoundError('The specified bucket does not exist')
    super().pipe_file(path, value, mode=mode, **options)


@pytest.fixture
def bucket(monkeypatch):
  """The folder of a run in a bucket."""
  monkeypatch.setitem(registry._registry, 's3', Memory)
  monkeypatch.setitem(fsspec.config.conf, 's3', {})
  cached = epath.backend.fsspec_backend._get_filesystem
  cached.cache_clear()
  Memory.store.clear()
  yield buckets._BucketPath('s3://bucket/run')
  cached.cache_clear()
