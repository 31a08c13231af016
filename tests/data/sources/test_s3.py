"""A bucket of a real S3 server, on this machine; it needs `pip install s3fs 'moto[server]'`."""

import importlib.util

import fsspec
import pytest

from contrastive_jax import data
from contrastive_jax.data.convert import convert

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def address():
  pytest.importorskip('s3fs')
  server = pytest.importorskip('moto.server').ThreadedMotoServer(port=0, verbose=False)
  server.start()
  yield 'http://{}:{}'.format(*server.get_host_and_port())
  server.stop()


@pytest.fixture
def bucket(address, tmp_path, monkeypatch):
  """A function that puts the files of the test's folder into an empty bucket."""
  # As ~/.config/fsspec or FSSPEC_S3_ENDPOINT_URL, FSSPEC_S3_KEY and FSSPEC_S3_SECRET say it.
  options = {'endpoint_url': address, 'key': 'anyone', 'secret': 'anything'}
  monkeypatch.setitem(fsspec.config.conf, 's3', options)
  system = fsspec.filesystem('s3')
  system.mkdir('bucket')

  def put():
    system.put(f'{tmp_path}/', 's3://bucket/pairs/', recursive=True)
    system.invalidate_cache()
    return system

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
  name = f'{style}:{copied}s3://bucket/pairs/{pattern}.{ending}'
  assert everything(name, 'train') == examples
  assert system.exists(f's3://bucket/pairs/pairs-00001.{ending}.index.npz')
  assert everything(name, 'train') == examples


def test_csv_with_whole_paths(bucket, examples, tmp_path):
  for i, example in enumerate(examples):
    (tmp_path / f'{i}.png').write_bytes(example['image'])
  lines = [f's3://bucket/pairs/{i}.png,caption {i}\n' for i in range(len(examples))]
  (tmp_path / 'pairs.csv').write_text('filepath,title\n' + ''.join(lines))
  bucket()
  read = everything('csv:s3://bucket/pairs/pairs.csv', 'train')
  assert [example['image'] for example in read] == [example['image'] for example in examples]


def test_tfds_is_read_by_place(bucket, prepared_as_tfrecord):
  if importlib.util.find_spec('tensorflow'):
    pytest.skip('TFDS then leaves files to TensorFlow, which knows no s3://')
  system = bucket()
  system.put(f'{prepared_as_tfrecord}/', 's3://bucket/', recursive=True)
  name = 'tfds:s3://bucket/pairs/1.0.0'
  expected = everything('pairs', 'heldout_composition[:9]', str(prepared_as_tfrecord))
  assert everything(name, 'heldout_composition[:9]') == expected


def test_a_bucket_is_converted(bucket, examples, write, tmp_path):
  write('webdataset', examples)
  bucket()
  name = 'webdataset:s3://bucket/pairs/pairs-*.tar'
  report = convert(name, str(tmp_path / 'converted'), shard_size=9)
  assert everything(report['name'], 'train') == examples


def test_a_shard_that_is_gone_is_named(bucket, examples, write):
  write('webdataset', examples)
  bucket()
  with pytest.raises(ValueError, match=r'1 of 4 files are missing.*pairs-00003\.tar'):
    data.open_source('webdataset:s3://bucket/pairs/pairs-{00000..00003}.tar', 'train')
