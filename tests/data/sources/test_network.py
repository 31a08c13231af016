"""Buckets: what fails for a moment is asked again, and shards may be copied to a disk whole."""

import collections
import contextlib
import http.server
import itertools
import threading
import typing
from concurrent import futures

import fsspec
import pytest
from absl import logging
from fsspec.implementations.memory import MemoryFileSystem

from contrastive_jax import data
from contrastive_jax.data.sources import files

ENDINGS = {'jsonl': 'jsonl', 'webdataset': 'tar'}


class Bucket(MemoryFileSystem):
  """A bucket that fails the first times that it is asked for something."""

  protocol = 'flaky'
  store: typing.ClassVar[dict] = {}
  pseudo_dirs: typing.ClassVar[list] = ['']
  failures: typing.ClassVar[int] = 0
  asked: typing.ClassVar = collections.Counter()

  @classmethod
  def _strip_protocol(cls, path):
    return MemoryFileSystem._strip_protocol(path.replace('flaky://', 'memory://'))

  def _fail(self, *what):
    self.asked[what] += 1
    if self.asked[what] <= self.failures:
      raise [TimeoutError, ConnectionResetError][self.asked[what] % 2]('the bucket is away')

  def info(self, path, **options):
    self._fail('info', path)
    return super().info(path, **options)

  def glob(self, path, **options):
    self._fail('glob', path)
    return super().glob(path, **options)

  def cat_file(self, path, start=None, end=None, **options):
    self._fail('read', path, start)
    return super().cat_file(path, start=start, end=end, **options)

  def get_file(self, path, local, **options):
    self._fail('get', path)
    super().get_file(path, local, **options)

  def _open(self, path, mode='rb', **options):
    self._fail('open', path)
    return super()._open(path, mode, **options)


fsspec.register_implementation('flaky', Bucket, clobber=True)


@pytest.fixture
def pauses(monkeypatch):
  """What would have been waited, in seconds."""
  waited = []
  monkeypatch.setattr(files.time, 'sleep', waited.append)
  return waited


@pytest.fixture(params=ENDINGS)
def bucket(request, examples, write, tmp_path):
  """A function that gives the name of 24 examples in a bucket that fails so many times."""
  write(request.param, examples)
  Bucket.store.clear()
  Bucket.failures = 0
  fsspec.filesystem('flaky').put(f'{tmp_path}/', '/bucket', recursive=True)

  def failing(times):
    Bucket.failures = times
    Bucket.asked.clear()
    return f'{request.param}:flaky://bucket/pairs-*.{ENDINGS[request.param]}'

  yield failing
  Bucket.failures = 0


def everything(source):
  return [source[i] for i in range(len(source))]


def test_a_bucket_that_times_out_twice_is_read(bucket, examples, pauses):
  source = data.open_source(bucket(2), 'train')
  assert everything(source) == examples
  assert pauses and set(pauses) == {0.5, 1.0}


def test_a_bucket_that_stays_away_is_many_bad_examples(bucket, pauses, caplog):
  logging.use_absl_handler()
  source = data.open_source(bucket(0), 'train')
  bucket(99)
  example = source[0]
  assert example['id'] == 0 and 'failed 5 times' in example['error']
  assert pauses == [0.5, 1.0, 2.0, 4.0]
  with pytest.raises(OSError, match='failed 5 times'):
    data.open_source(bucket(99), 'train')


def test_an_index_is_found_where_the_bucket_fails_for_a_moment(bucket, pauses, monkeypatch):
  name = bucket(0)
  data.open_source(name, 'train')
  monkeypatch.setattr(Bucket, '_open', None)  # Which alone would scan.
  bucket(2)
  assert len(data.open_source(name, 'train')) == 24


def test_what_is_not_there_is_not_asked_again(pauses):
  with pytest.raises(FileNotFoundError):
    files.read('flaky://bucket/nothing')
  with pytest.raises(ValueError, match=r'1 of 1 files are missing'):
    files.find('flaky://bucket/nothing')
  assert not pauses


@pytest.fixture
def copies(tmp_path, monkeypatch):
  """The folder of the copies."""
  folder = tmp_path / 'copies'
  monkeypatch.setitem(fsspec.config.conf, 'simplecache', {'cache_storage': str(folder)})
  return folder


@pytest.mark.parametrize('pattern', ['pairs-*', '{split}-{{00000..00002}}', 'pairs-0000?'])
def test_shards_are_copied_whole_and_once(pattern, examples, write, tmp_path, copies, pauses):
  write('webdataset', examples)
  for path in [*tmp_path.glob('pairs-*')] * ('split' in pattern):
    path.rename(str(path).replace('pairs', 'train'))
  Bucket.store.clear()
  fsspec.filesystem('flaky').put(f'{tmp_path}/', '/bucket', recursive=True)
  Bucket.asked.clear()
  Bucket.failures = 2
  try:
    name = f'webdataset:simplecache::flaky://bucket/{pattern}.tar'.replace('{{', '{')
    source = data.open_source(name.replace('}}', '}'), 'train')
    with futures.ThreadPoolExecutor(8) as pool:
      assert [*pool.map(source.__getitem__, [*range(24)] * 3)] == examples * 3
  finally:
    Bucket.failures = 0
  got = {what: count for what, count in Bucket.asked.items() if what[1].endswith('.tar')}
  # The third opening of each succeeded, and there was no other.
  assert [count for what, count in got.items() if what[0] == 'open'] == [3] * 3
  assert not [what for what in got if what[0] == 'read']
  assert sum(path.suffix == '.partial' for path in copies.rglob('*')) == 0


def test_a_copy_that_was_broken_off_is_made_anew(bucket, examples, copies, monkeypatch):
  name = bucket(0).replace('flaky:', 'simplecache::flaky:')

  def stop(self, path, local, **_):
    with open(local, 'w') as file:
      file.write('half')
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(Bucket, 'get_file', stop)
    data.open_source(name, 'train')
  assert everything(data.open_source(name, 'train')) == examples


def test_copies_need_a_folder(bucket, monkeypatch):
  monkeypatch.delitem(fsspec.config.conf, 'simplecache', raising=False)
  with pytest.raises(ValueError, match='FSSPEC_SIMPLECACHE_CACHE_STORAGE'):
    data.open_source(bucket(0).replace('flaky:', 'simplecache::flaky:'), 'train')


@contextlib.contextmanager
def serve(folder, *, ranges=True, status=None):
  """A web server that hangs up on each second request; without ranges it gives whole files; with a
  status it gives that alone.
  """
  requests = itertools.count()

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
      super().__init__(*arguments, directory=str(folder))

    def log_message(self, *_):
      pass

    def do_GET(self):
      if status:
        self.send_error(status)
        return
      if next(requests) % 2:
        self.close_connection = True
        return
      wanted = self.headers.get('Range') if ranges else None
      if wanted is None:
        super().do_GET()
        return
      content = (folder / self.path.lstrip('/')).read_bytes()
      first, last = wanted.removeprefix('bytes=').split('-')
      part = content[int(first) : int(last) + 1 if last else None]
      self.send_response(206)
      self.send_header('Content-Length', str(len(part)))
      self.send_header('Content-Range', f'bytes {first}-{last}/{len(content)}')
      self.end_headers()
      self.wfile.write(part)

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}'
  finally:
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize('style', ENDINGS)
def test_a_web_server_that_hangs_up_is_read(style, examples, write, tmp_path, pauses):
  pytest.importorskip('aiohttp')
  write(style, examples)
  with serve(tmp_path, ranges=True) as address:
    name = f'{style}:{address}/pairs-{{00000..00002}}.{ENDINGS[style]}'
    assert everything(data.open_source(name, 'train')) == examples
  assert pauses


@pytest.mark.parametrize(('status', 'tries'), [(403, 1), (429, 5), (503, 5)])
def test_a_refusal_is_not_asked_again(status, tries, tmp_path, pauses):
  pytest.importorskip('aiohttp')
  with (
    serve(tmp_path, status=status) as address,
    pytest.raises(OSError, match=rf'failed {tries} times.*status={status}'),
  ):
    files.read(f'{address}/a.jpg')
  assert len(pauses) == tries - 1


def test_a_server_that_knows_no_ranges_is_found_out(examples, write, tmp_path):
  pytest.importorskip('aiohttp')
  write('webdataset', examples)
  with serve(tmp_path, ranges=False) as address, pytest.raises(OSError, match='knows no ranges'):
    for _ in range(3):
      files.read(f'{address}/pairs-00000.tar', 512, 100)
