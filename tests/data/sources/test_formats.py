"""Every format gives the examples that were written, any part of them, and names what is bad."""

import json
import re
import shutil
import time

import cloudpickle
import fsspec
import numpy as np
import pytest
from absl import logging
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contrastive_jax import data
from contrastive_jax.data.sources import files, opening
from contrastive_jax.runtime import waiting

FORMATS = ('arrayrecord', 'jsonl', 'parquet', 'webdataset')
TEXTS = st.text(st.characters(codec='utf-8'))


def everything(source):
  return [source[i] for i in range(len(source))]


@pytest.mark.parametrize('style', FORMATS)
def test_what_is_read_is_what_was_written(style, examples, write):
  name = write(style, examples)
  assert everything(data.open_source(name, 'train')) == examples
  assert everything(data.open_source(name, 'train')) == examples  # by what the first time kept


@pytest.mark.parametrize('style', FORMATS)
@settings(
  max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_any_text_comes_back(style, texts, examples, write):
  own = [{'id': i, 'image': examples[i]['image'], 'caption': t} for i, t in enumerate(texts)]
  source = data.open_source(write(style, own), 'train')
  assert source.values('caption') == texts


@pytest.mark.parametrize('style', FORMATS)
def test_slices_and_selections_are_those_of_tfds(style, examples, write):
  name = write(style, examples)
  assert len(data.open_source(name, 'train[:50%]')) == 12
  assert data.open_source(name, 'train[20:]')[0]['caption'] == examples[20]['caption']
  group = examples[3]['group']
  selected = data.open_source(name, f'train[group={group}]')
  assert selected.values('id') == [e['id'] for e in examples if e['group'] == group]
  twice = data.open_source(name, f'train[group={group}]+train')
  assert len(twice) == len(selected) + len(examples)


def test_another_process_reads_the_same(open_anew):
  """What is sent to a process is how to read, and nothing of what was read or is open."""
  source = open_anew()
  sent = cloudpickle.dumps(source)
  read = [source[i] for i in range(5)]  # TFDS makes its parsers at the first examples
  before = len(cloudpickle.dumps(source))
  read += [source[i] for i in range(5, 20)]
  size = sum(len(example['image']) for example in read[5:])
  assert len(cloudpickle.dumps(source)) - before < 100 < 5_000 < size
  received = cloudpickle.loads(sent)
  assert len(received) == len(source)
  assert [received[i] for i in range(20)] == read


def test_splits_have_files_of_their_own(examples, write, tmp_path):
  write('webdataset', examples[:4])
  (tmp_path / 'pairs-00000.tar').rename(tmp_path / 'validation-00000.tar')
  write('webdataset', examples[4:])
  (tmp_path / 'pairs-00000.tar').rename(tmp_path / 'train-00000.tar')
  name = f'webdataset:{tmp_path}/{{split}}-{{00000..00000}}.tar'
  assert data.open_source(name, 'validation').values('caption') == [
    e['caption'] for e in examples[:4]
  ]
  assert len(data.open_source(name, 'train')) == 10
  with pytest.raises(ValueError, match=r'missing.*test-00000'):
    data.open_source(name, 'test')


@pytest.mark.parametrize('style', ['jsonl', 'webdataset'])
def test_a_bucket_is_read_as_a_disk_is(style, examples, write, tmp_path):
  write(style, examples)
  bucket = fsspec.filesystem('memory')
  bucket.put(f'{tmp_path}/', f'/{style}', recursive=True)
  ending = {'jsonl': 'jsonl', 'webdataset': 'tar'}[style]
  name = f'{style}:memory://{style}/pairs-{{00000..00002}}.{ending}'
  assert everything(data.open_source(name, 'train')) == examples
  assert bucket.exists(f'/{style}/pairs-00002.{ending}.index.npz')
  assert len(data.open_source(f'{style}:memory://{style}/pairs-*.{ending}', 'train')) == 24


def test_a_folder_that_cannot_be_written_is_read(examples, write, monkeypatch, caplog):
  def refuse(*_):
    raise PermissionError('read-only')

  logging.use_absl_handler()
  monkeypatch.setattr(files, '_write_index', refuse)
  assert everything(data.open_source(write('webdataset', examples), 'train')) == examples
  assert 'the indices of 3 of 3 files cannot be stored beside them' in caplog.text
  assert 'read-only; every process scans' in caplog.text


def test_a_file_that_changed_is_scanned_anew(examples, write):
  data.open_source(write('webdataset', examples[:5]), 'train')
  assert len(data.open_source(write('webdataset', examples[:7]), 'train')) == 7


@pytest.mark.parametrize('style', ['jsonl', 'webdataset'])
def test_what_a_format_cannot_hold_is_named(style, examples, write):
  with pytest.raises(TypeError, match=r'a bytes, cannot be written .*arrayrecord'):
    write(style, [examples[0] | {'embedding': bytes([255])}])
  assert len(data.open_source(write('arrayrecord', [examples[0] | {'e': b'\xff'}]), 'train')) == 1


def test_a_long_scan_says_how_far_it_is(examples, write, monkeypatch, caplog):
  logging.use_absl_handler()
  monkeypatch.setattr(waiting, 'SECONDS', 0.05)
  scan = files._scan_once

  def scan_slowly(path, *arguments):
    time.sleep(0.4 if path.endswith('2.tar') else 0)
    return scan(path, *arguments)

  monkeypatch.setattr(files, '_scan_once', scan_slowly)
  with caplog.at_level('WARNING'):
    data.open_source(write('webdataset', examples), 'train')
  assert re.search(r'still indexing \S+pairs-00000\.tar and others, 2 of 3 done', caplog.text)


@pytest.mark.parametrize('content', [b'', b'not an archive', b'PK\x03\x04'])
def test_a_damaged_index_is_made_anew(content, examples, write, tmp_path):
  name = write('webdataset', examples)
  data.open_source(name, 'train')
  (tmp_path / 'pairs-00001.tar.index.npz').write_bytes(content)
  assert everything(data.open_source(name, 'train')) == examples


@pytest.mark.parametrize('style', FORMATS)
def test_examples_make_batches(style, examples, write):
  source = data.open_source(write(style, examples), 'train')
  iterator, skips = data.training_batches(
    source,
    lambda texts: np.zeros([len(texts), 4], np.int32),
    batch_size=8,
    image_size=8,
    captions={'caption': 1.0, 'tags': 1.0},
    seed=0,
    threads=2,
  )
  ids = np.concatenate([next(iterator)['id'] for _ in range(3)])
  assert sorted(ids) == list(range(24)) and skips.skipped == 0


def test_tfds_reads_tfrecord_without_tensorflow(prepared_as_tfrecord):
  expected = data.open_source('emoji', 'heldout_composition[:20]')
  for name, split, folder in (
    ('pairs', 'heldout_composition[:20]', prepared_as_tfrecord),
    ('tfds:pairs:heldout_composition', 'train', prepared_as_tfrecord),
    (f'tfds:{prepared_as_tfrecord}/pairs/1.0.0', 'heldout_composition', None),
  ):
    source = data.open_source(name, split, folder and str(folder))
    assert [source[i] for i in range(20)] == everything(expected)


def test_a_damaged_record_is_one_bad_example(prepared_as_tfrecord, tmp_path):
  folder = shutil.copytree(prepared_as_tfrecord, tmp_path / 'tfds')
  (file,) = folder.glob('pairs/1.0.0/*-of-00001')
  content = bytearray(file.read_bytes())
  content[12:40] = bytes([255]) * 28  # Of the first record: its length comes before.
  file.write_bytes(content)
  source = data.open_source('pairs', 'heldout_composition', str(folder))
  assert 'the record does not parse' in source[0]['error'] and 'image' in source[1]


@pytest.mark.parametrize('split', ['train', 'train[:9]', 'train[:50%]+heldout_style[5:]'])
def test_a_part_of_a_large_set_is_not_kept_in_memory(split, monkeypatch):
  assert data.open_source('emoji', split).cached
  monkeypatch.setattr(opening, '_CACHED_BYTES', 2**20)
  assert not data.open_source('emoji', split).cached


def test_a_split_in_the_name_stands_for_train():
  named = data.open_source('tfds:emoji:heldout_style[:10]', 'train[group!=flags]')
  assert set(named.values('vendor')) == {'fluent'} and len(named) == 10


@pytest.mark.parametrize(
  ('pattern', 'paths'),
  [
    ('a.tar', ['a.tar']),
    ('{8..11}', ['8', '9', '10', '11']),
    ('{08..10}{x,y}', ['08x', '08y', '09x', '09y', '10x', '10y']),
    ('a{b}', ['a{b}']),
  ],
)
def test_braces(pattern, paths):
  assert files.expand_braces(pattern) == paths


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('webdataset:{folder}/gone-{{0..3}}.tar', r'4 of 4 files are missing.*gone-0\.tar'),
    ('webdataset:{folder}/{{{{a,b}},c}}.tar', 'nested braces'),
    ('webdataset:{folder}/{{9..1}}.tar', r'\{9\.\.1\} counts down; write \{1\.\.9\}'),
    ('jsonl:{folder}/*.jsonl', 'no file matches'),
    ('webdataset:{folder}/text', r'text is no tar shard'),
    ('arrayrecord:{folder}/text', 'damaged'),
    ('jsonl:{folder}/text', r'cannot be used: .*does not parse'),
    ('jsonl:{folder}/empty', 'no example|no row'),
    ('csv:{folder}/rows', 'cannot be used|no field'),
    ('webdataset:{folder}/t-*.tar', r'1 of 3 shards are there'),
    ('webdataset:nowhere://bucket/x.tar', 'nowhere'),
    ('webdataset:{folder}/text*0+emoji*1', 'text is no tar'),
    ('webdatset:{folder}/x.tar', r"starts with 'webdatset'; use one of .*'webdataset'"),
    ('webdataset:{folder}/*.tar*2+emoji', 'not after each part'),
    ('emoji*0+emoji*1', 'numbers above 0'),
  ],
)
def test_what_cannot_be_opened_is_named(name, message, tmp_path):
  (tmp_path / 'text').write_text('neither\n')
  (tmp_path / 'rows').write_text(json.dumps({'a': 1}) + '\n')
  (tmp_path / 'empty').write_text('')
  (tmp_path / 't-00001-of-00003.tar').write_bytes(b'')
  with pytest.raises(ValueError, match=message):
    data.open_source(name.format(folder=tmp_path), 'train')


def test_a_source_of_one_split_has_no_other(examples, write):
  with pytest.raises(ValueError, match=r"config\.data\.name = 'jsonl:.*asked for 'validation'"):
    data.open_source(write('jsonl', examples), 'validation')
