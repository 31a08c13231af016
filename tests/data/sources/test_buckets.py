"""Buckets of an S3 and of a Google Cloud Storage server, run here; `pip install .[buckets]`."""

import importlib.util

import fsspec
import pytest

from contrastive_jax import data
from contrastive_jax.data.convert import convert
from tests import bucket_servers

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', params=['s3', 'gs'])
def served(request):
  """The protocol of a running server, and fsspec's options for it."""
  serve, options = {
    's3': (bucket_servers.serve_s3, {'key': 'anyone', 'secret': 'anything'}),
    'gs': (bucket_servers.serve_gs, {'token': 'anon'}),
  }[request.param]
  with serve() as address:
    yield request.param, {'endpoint_url': address} | options


@pytest.fixture
def bucket(served, tmp_path, monkeypatch):
  """A function that puts the files of the test's folder into an empty bucket, named by `url`."""
  # As ~/.config/fsspec or FSSPEC_S3_ENDPOINT_URL, FSSPEC_S3_KEY and FSSPEC_S3_SECRET say it.
  protocol, options = served
  monkeypatch.setitem(fsspec.config.conf, protocol, options)
  system = fsspec.filesystem(protocol)
  system.mkdir('bucket')

  def put():
    system.put(f'{tmp_path}/', f'{put.url}/pairs/', recursive=True)
    system.invalidate_cache()
    return system

  put.url = f'{protocol}://bucket'
  yield put
  system.rm('bucket', recursive=True)


def everything(name, *options):
  source = data.open_source(name, *options)
  return [source[i] for i in range(len(source))]


@pytest.mark.parametrize(('style', 'ending'), [('jsonl', 'jsonl'), ('webdataset', 'tar')])
@pytest.mark.parametrize('pattern', ['pairs-*', 'pairs-{00000..00002}'])
@pytest.mark.parametrize('copied', ['', 'simplecache::'])
def test_a_bucket_is_read_as_a_disk_is(
  style, ending, pattern, copied, bucket, examples, write, tmp_path, monkeypatch
):
  folder = {'cache_storage': str(tmp_path / 'copies')}
  monkeypatch.setitem(fsspec.config.conf, 'simplecache', folder)
  write(style, examples)
  system = bucket()
  name = f'{style}:{copied}{bucket.url}/pairs/{pattern}.{ending}'
  assert everything(name, 'train') == examples
  assert system.exists(f'{bucket.url}/pairs/pairs-00001.{ending}.index.npz')
  assert everything(name, 'train') == examples


def test_csv_with_whole_paths(bucket, examples, tmp_path):
  for i, example in enumerate(examples):
    (tmp_path / f'{i}.png').write_bytes(example['image'])
  lines = [f'{bucket.url}/pairs/{i}.png,caption {i}\n' for i in range(len(examples))]
  (tmp_path / 'pairs.csv').write_text('filepath,title\n' + ''.join(lines))
  bucket()
  read = everything(f'csv:{bucket.url}/pairs/pairs.csv', 'train')
  assert [example['image'] for example in read] == [example['image'] for example in examples]


def test_tfds_is_read_by_place(bucket, prepared_as_tfrecord):
  if importlib.util.find_spec('tensorflow'):
    pytest.skip('TFDS then leaves files to TensorFlow, which needs more for a bucket')
  system = bucket()
  system.put(f'{prepared_as_tfrecord}/', f'{bucket.url}/', recursive=True)
  name = f'tfds:{bucket.url}/pairs/1.0.0'
  expected = everything('pairs', 'heldout_composition[:9]', str(prepared_as_tfrecord))
  assert everything(name, 'heldout_composition[:9]') == expected


def test_a_bucket_is_converted(bucket, examples, write, tmp_path):
  write('webdataset', examples)
  bucket()
  name = f'webdataset:{bucket.url}/pairs/pairs-*.tar'
  report = convert(name, str(tmp_path / 'converted'), shard_size=9)
  assert everything(report['name'], 'train') == examples


def test_a_shard_that_is_gone_is_named(bucket, examples, write):
  write('webdataset', examples)
  bucket()
  with pytest.raises(ValueError, match=r'1 of 4 files are missing.*pairs-00003\.tar'):
    data.open_source(f'webdataset:{bucket.url}/pairs/pairs-{{00000..00003}}.tar', 'train')
