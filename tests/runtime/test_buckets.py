"""Workdirs in buckets: paths, errors, files that grow, and the storage of arrays."""

import json
import pathlib

import fsspec
import pytest
from absl import logging

from contrastive_jax.runtime import buckets
from contrastive_jax.training.logger import Logger, read_metrics
from contrastive_jax.training.workdir import finished_steps


@pytest.fixture
def broken(bucket, monkeypatch):
  """A function that makes writing to the bucket raise an error."""

  def fail(error):
    def refuse(*_, **__):
      raise error

    system = buckets.system_of(bucket)
    for name in ('pipe_file', 'put_file'):
      monkeypatch.setattr(system, name, refuse)

  return fail


def test_local_paths_stay_as_they_are():
  path = buckets.open_path('runs/a')
  assert path == pathlib.Path('runs/a') and type(path) is type(pathlib.Path())
  assert not buckets.is_bucket(path) and not buckets.is_bucket('/tmp/gs:/run')


@pytest.mark.parametrize('url', ['file:///tmp/run', 'hdfs://host/run', 'az://bucket/run'])
def test_other_urls_are_an_error(url):
  with pytest.raises(ValueError, match=rf'workdir {url} is a .*use gs://BUCKET/RUN, s3://'):
    buckets.open_path(url)


@pytest.mark.parametrize(('scheme', 'package'), [('gs', 'gcsfs'), ('s3', 's3fs')])
def test_a_missing_package_is_named(scheme, package, monkeypatch):
  monkeypatch.setattr(buckets.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=f'pip install {package}'):
    buckets.open_path(f'{scheme}://bucket/run')


def test_a_bucket_that_can_be_written_stays_empty(bucket):
  buckets.check_writable(bucket)
  assert not buckets.system_of(bucket).find('s3://bucket')


def test_what_keeps_a_bucket_from_being_written_is_named(bucket, broken):
  with pytest.raises(ValueError, match='there is no bucket s3://other; create it'):
    buckets.check_writable(buckets._BucketPath('s3://other/run'))
  broken(PermissionError('Access Denied'))
  with pytest.raises(ValueError, match=r'PermissionError: Access Denied.*AWS_ACCESS_KEY_ID'):
    buckets.check_writable(bucket)


def test_paths_of_a_bucket_are_absolute(bucket):
  assert str((bucket / 'a').absolute().resolve().parent) == 's3://bucket/run'


def test_a_folder_is_renamed_with_all_its_objects(bucket):
  for name in ('a', 'deep/b'):
    (bucket / '3' / name).write_text(name)
  (bucket / '3').rename(bucket / 'damaged_3')
  assert sorted(path.name for path in bucket.iterdir()) == ['damaged_3']
  assert (bucket / 'damaged_3/deep/b').read_text() == 'deep/b'


def test_only_committed_checkpoints_are_complete(bucket):
  for name in ('3/state', '5/state', '3/commit_success.txt', 'damaged_2_9/commit_success.txt'):
    (bucket / 'checkpoints' / name).write_text('')
  assert finished_steps(bucket) == [3]


def test_a_mirror_copies_what_changed(bucket, monkeypatch):
  mirror = buckets.Mirror(bucket)
  (mirror.local / 'lines').write_text('one\n')
  (mirror.local / 'other').write_text('kept')
  mirror.copy()
  sent = []
  system = buckets.system_of(bucket)
  put = system.put_file
  monkeypatch.setattr(system, 'put_file', lambda *paths: sent.append(paths[1]) or put(*paths))
  (mirror.local / 'lines').write_text('one\ntwo\n')
  mirror.copy_if_due()
  assert not sent
  monkeypatch.setattr(mirror, '_due', 0)
  mirror.copy_if_due()
  assert sent == ['s3://bucket/run/lines'] and not mirror.is_due
  assert (bucket / 'lines').read_text() == 'one\ntwo\n'
  mirror.close()
  assert not mirror.local.exists()


def test_a_copy_that_fails_is_made_later_or_an_error(bucket, broken, monkeypatch, caplog):
  logging.use_absl_handler()
  mirror = buckets.Mirror(bucket)
  (mirror.local / 'lines').write_text('one\n')
  with monkeypatch.context() as patch:
    system = buckets.system_of(bucket)
    patch.setattr(system, 'put_file', lambda *_: 1 / 0)
    patch.setattr(mirror, '_due', 0)
    mirror.copy_if_due()
    assert 's3://bucket/run/lines cannot be written' in caplog.text
    with pytest.raises(OSError, match='s3://bucket/run/lines cannot be written'):
      mirror.copy()
  mirror.close()
  assert (bucket / 'lines').read_text() == 'one\n'


def test_a_local_mirror_is_the_folder(tmp_path):
  mirror = buckets.Mirror(tmp_path)
  mirror.copy()
  mirror.close()
  assert mirror.local == tmp_path and tmp_path.exists() and not mirror.is_due


def test_all_lines_before_a_checkpoint_are_in_the_bucket(bucket):
  (bucket / 'metrics.jsonl').write_text(
    ''.join(json.dumps({'step': step, 'loss': 1.0}) + '\n' for step in range(1, 6))
  )
  with Logger(bucket, step=3, total_steps=9) as logger:
    logger.write(4, {'loss': 2.0})
    logger.write(5, {'loss': 3.0})
    logger.save()
    saved = read_metrics(bucket)
    logger.write(6, {'loss': 4.0})
  assert [line['loss'] for line in saved] == [1, 1, 1, 2, 3]
  assert [line['step'] for line in read_metrics(bucket)] == [1, 2, 3, 4, 5, 6]
  assert len([path for path in (bucket / 'tensorboard').iterdir() if 'tfevents' in path.name]) == 1


def test_tensorstore_takes_the_endpoint_and_credentials_of_fsspec(monkeypatch):
  for name in ('AWS_ENDPOINT_URL', 'AWS_ENDPOINT_URL_S3', 'AWS_REGION', 'AWS_ACCESS_KEY_ID'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setitem(fsspec.config.conf, 's3', {})
  plain = {'driver': 's3', 'bucket': 'b', 'path': 'run/checkpoints'}
  assert buckets._s3_storage('s3://b/run/checkpoints') == plain
  monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://one')
  monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'key')
  monkeypatch.setenv('AWS_REGION', 'eu-north-1')
  own = {'endpoint': 'http://one', 'aws_region': 'eu-north-1'}
  environment = {'aws_credentials': {'type': 'environment'}}
  assert buckets._s3_storage('s3://b/run/checkpoints') == plain | own | environment
  monkeypatch.setitem(fsspec.config.conf, 's3', {'endpoint_url': 'http://two', 'anon': True})
  found = buckets._s3_storage('s3://b/run/checkpoints')
  assert found['endpoint'] == 'http://two' and found['aws_credentials']['type'] == 'anonymous'


def test_orbax_opens_s3_and_leaves_others_alone(monkeypatch):
  from orbax.checkpoint._src.path import gcs_utils
  from orbax.checkpoint._src.serialization import tensorstore_utils as storage

  for module, name in (
    (storage, '_use_gcs_driver'),
    (storage, '_normalize_path'),
    (gcs_utils, 'get_kvstore_for_gcs'),
  ):
    monkeypatch.setattr(module, name, getattr(module, name))
  monkeypatch.setattr(storage, '_knows_s3', False, raising=False)
  monkeypatch.setitem(fsspec.config.conf, 's3', {})
  before = {path: storage.build_kvstore_tspec(path) for path in ('/tmp/run', 'gs://bucket/run')}
  with pytest.raises(ValueError, match='should be absolute'):
    storage.build_kvstore_tspec('s3://bucket/run')
  buckets._extend_orbax()
  for path, expected in before.items():
    assert storage.build_kvstore_tspec(path) == expected
  made = storage.build_kvstore_tspec('s3://bucket/run/')
  assert made['base'].items() >= {'driver': 's3', 'bucket': 'bucket', 'path': 'run'}.items()
