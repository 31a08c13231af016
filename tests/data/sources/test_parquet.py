"""Parquet files are read by row groups, whatever wrote them."""

import datetime
import decimal
import json
import random
import sys

import cloudpickle
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from absl import logging

from contrastive_jax import data
from contrastive_jax.data.convert import convert
from contrastive_jax.data.sources import parquet
from tests.data.sources.writers import hugging_face_table

PICTURES = {
  'bytes': lambda e, i: e['image'],
  'struct': lambda e, i: {'bytes': e['image'], 'path': f'{i}.png'},
  'struct of bytes': lambda e, i: {'bytes': e['image']},
  'struct of paths': lambda e, i: {'bytes': None, 'path': f'{i}.png'},
  'path': lambda e, i: f'{i}.png',
}
BYTES = {'bytes': pa.binary(), 'path': pa.string()}


def everything(name, split='train'):
  source = data.open_source(name, split)
  return [source[i] for i in range(len(source))]


def table_of(examples, form='struct', **columns):
  pictures = pa.array([PICTURES[form](e, i) for i, e in enumerate(examples)])
  if form == 'struct of paths':
    pictures = pictures.cast(pa.struct(BYTES))
  captions = [e['caption'] for e in examples]
  return pa.table({'image': pictures, 'caption': captions, **columns})


@pytest.fixture
def name(examples, tmp_path):
  """Two files with row groups of five examples."""
  table = hugging_face_table(examples)
  pq.write_table(table[:14], tmp_path / 'train-00000-of-00002.parquet', row_group_size=5)
  pq.write_table(table[14:], tmp_path / 'train-00001-of-00002.parquet', row_group_size=5)
  return f'parquet:{tmp_path}/{{split}}-*.parquet'


def test_what_is_read_is_what_was_written(name, examples):
  assert everything(name) == examples
  assert [e['id'] for e in everything(name, 'train[12:16]')] == [0, 1, 2, 3]
  group = examples[3]['group']
  chosen = data.open_source(name, f'train[group={group}]')
  assert chosen.values('id') == [e['id'] for e in examples if e['group'] == group]


@pytest.mark.parametrize('form', PICTURES)
@pytest.mark.parametrize('compression', ['snappy', 'zstd', 'none'])
def test_an_image_is_bytes_or_a_path(form, compression, examples, tmp_path):
  for i, example in enumerate(examples):
    (tmp_path / f'{i}.png').write_bytes(example['image'])
  table = table_of(examples, form)
  pq.write_table(table, tmp_path / 'a.parquet', row_group_size=7, compression=compression)
  source = data.open_source(f'parquet:{tmp_path}/a.parquet', 'train')
  assert source.cached == ('path' not in form)  # files elsewhere may be of any size
  found = [source[i] for i in range(len(source))]
  assert found == [{key: e[key] for key in ('id', 'image', 'caption')} for e in examples]


@pytest.mark.parametrize('column', ['img', 'jpg', 'image_path', 'picture'])
def test_the_image_is_found_by_its_name_or_type(column, examples, tmp_path):
  """As in CIFAR on the hub, in img2dataset's files, under a name of tables, and of any struct."""
  form = 'bytes' if column in ('jpg', 'image_path') else 'struct'
  table = table_of(examples, form, url=['http://a/b.jpg'] * len(examples))
  table = table.rename_columns([column, 'TEXT' if column == 'jpg' else 'text', 'url'])
  pq.write_table(table, tmp_path / 'a.parquet')
  found = everything(f'parquet:{tmp_path}/a.parquet')
  assert [e['image'] for e in found] == [e['image'] for e in examples]
  assert found[0].keys() == {'id', 'image', 'url', 'TEXT' if column == 'jpg' else 'caption'}


def test_sound_and_further_images_are_passed_over(examples, tmp_path, caplog):
  logging.use_absl_handler()
  others = pa.array([{'bytes': b'OggS', 'path': None}] * len(examples), pa.struct(BYTES))
  table = (
    table_of(examples)
    .append_column('mask', others)
    .append_column('masks', pa.array([[{'bytes': b'x'}]] * len(examples)))
  )
  table = pa.table({'audio': others, **{name: table[name] for name in table.column_names}})
  features = {'audio': {'_type': 'Audio'}, 'image': {'_type': 'Image'}, 'mask': {'_type': 'Image'}}
  table = table.rename_columns(['audio', 'photo', 'caption', 'mask', 'masks'])
  features['photo'] = features.pop('image')
  table = table.replace_schema_metadata(
    {'huggingface': json.dumps({'info': {'features': features}})}
  )
  pq.write_table(table, tmp_path / 'a.parquet')
  with caplog.at_level('WARNING'):
    found = everything(f'parquet:{tmp_path}/a.parquet')
  assert found[3] == {'id': 3, 'image': examples[3]['image'], 'caption': examples[3]['caption']}
  assert "the image is photo; passed over are the images ['audio', 'mask', 'masks']" in caplog.text


def test_labels_have_names_as_in_tfds(examples, tmp_path):
  own = [
    {
      'image': e['image'],
      'text': e['caption'],
      'label': i % 3 - 1,
      'kinds': [0, 1],
      'inner': {'a': 1},
    }
    for i, e in enumerate(examples)
  ]
  label = {'_type': 'ClassLabel', 'names': ['cat', 'dog']}
  features = {
    'image': {'_type': 'Image'},
    'label': label,
    'kinds': {'_type': 'Sequence', 'feature': label},
    'inner': {'a': label},
  }
  pq.write_table(hugging_face_table(own, features), tmp_path / 'a.parquet')
  found = everything(f'parquet:{tmp_path}/a.parquet')
  assert [e['label'] for e in found[:4]] == ['', 'cat', 'dog', '']
  assert found[0]['kinds'] == ['cat', 'dog'] and found[0]['inner'] == {'a': 'dog'}
  assert found[0]['caption'] == examples[0]['caption']
  chosen = data.open_source(f'parquet:{tmp_path}/a.parquet', 'train[label=dog]')
  assert chosen.values('id') == [*range(2, 24, 3)]


def test_values_are_those_of_python(examples, tmp_path):
  day = datetime.datetime(2024, 5, 1, 12)
  columns = {
    'time': pa.array([day] * 24, pa.timestamp('ns')),
    'day': pa.array([day.date()] * 24),
    'price': pa.array([decimal.Decimal('1.50')] * 24),
    'kind': pa.array(['a', 'b'] * 12).dictionary_encode(),
    'length': pa.array([1, None] * 12),
    'wait': pa.array([datetime.timedelta(seconds=2)] * 24, pa.duration('s')),
  }
  pq.write_table(table_of(examples, **columns), tmp_path / 'a.parquet')
  found = everything(f'parquet:{tmp_path}/a.parquet')[1]
  assert found.pop('image') == examples[1]['image']
  assert found == {
    'id': 1,
    'caption': examples[1]['caption'],
    'time': '2024-05-01 12:00:00.000000000',
    'day': '2024-05-01',
    'price': 1.5,
    'kind': 'b',
    'length': None,
    'wait': 2,
  }


def test_texts_need_no_image(tmp_path):
  pq.write_table(pa.table({'text': ['a', 'b'], 'score': [0.1, 0.9]}), tmp_path / 'a.parquet')
  assert everything(f'parquet:{tmp_path}/a.parquet') == [
    {'id': 0, 'caption': 'a', 'score': 0.1},
    {'id': 1, 'caption': 'b', 'score': 0.9},
  ]


def large(examples, rows=60, size=20_000):
  """Examples with images that do not compress."""
  noise = np.random.default_rng(0)
  return [{'image': noise.bytes(size), 'caption': f'caption {i}'} for i in range(rows)]


def open_uncached(name, split='train'):
  source = data.open_source(name, split)
  source.cached = False  # as large data
  return source


@pytest.mark.parametrize('form', ['struct', 'bytes'])
def test_fields_leave_images_unread(form, examples, tmp_path, bytes_read):
  own = large(examples)
  pq.write_table(table_of(own, form), tmp_path / 'a.parquet', row_group_size=10)
  source = open_uncached(f'parquet:{tmp_path}/a.parquet')
  bytes_read.clear()
  assert [source.fields(i)['caption'] for i in range(60)] == [e['caption'] for e in own]
  assert sum(bytes_read) < 100_000  # of 1.2 MB; the footer is read by blocks of 64 KiB


def test_row_groups_are_read_once_in_order_and_memory_stays_bounded(
  examples, tmp_path, bytes_read, monkeypatch
):
  own = large(examples, rows=400)
  pq.write_table(table_of(own), tmp_path / 'a.parquet', row_group_size=10)
  monkeypatch.setattr(parquet, '_GROUP_BYTES', 600_000)  # three row groups of 40
  source = open_uncached(f'parquet:{tmp_path}/a.parquet')
  bytes_read.clear()
  before = pa.total_allocated_bytes()
  assert all(source[i]['image'] == own[i]['image'] for i in range(400))
  assert 7_600_000 < sum(bytes_read) < 8_400_000
  order = [*range(400)]
  for epoch in range(2):
    random.Random(epoch).shuffle(order)
    for i in order:
      assert len(source[i]['image']) == 20_000
      assert pa.total_allocated_bytes() - before < 1_000_000


def test_a_shuffle_of_shards_decodes_a_row_group_about_once(
  examples, tmp_path, bytes_read, monkeypatch
):
  monkeypatch.setattr(parquet, '_GROUP_BYTES', 40_000)
  own = large(examples, rows=600, size=2_000)
  for shard in range(4):
    table = table_of(own[150 * shard : 150 * (shard + 1)])
    pq.write_table(table, tmp_path / f'{shard}.parquet', row_group_size=10)
  source = open_uncached(f'parquet:{tmp_path}/*.parquet')
  assert source.shard_sizes() == [10] * 60
  bytes_read.clear()
  batches, _ = data.training_batches(
    source,
    lambda texts: np.zeros([len(texts), 2], np.int32),
    batch_size=8,
    captions={'caption': 1.0},
    inputs=('tokens',),
    shuffle='shards',
    shuffle_buffer=256,
    threads=0,
    seed=0,
  )
  ids = np.concatenate([next(batches)['id'] for _ in range(75)])
  assert sorted(ids.tolist()) == [*range(600)]
  assert sum(bytes_read) < 3 * 600 * 2_100


def test_a_damaged_row_group_is_as_many_bad_examples(examples, name, tmp_path):
  path = tmp_path / 'train-00000-of-00002.parquet'
  column = pq.ParquetFile(path).metadata.row_group(1).column(0)
  assert column.path_in_schema == 'image.bytes'
  content = bytearray(path.read_bytes())
  start = column.dictionary_page_offset or column.data_page_offset
  content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
  path.write_bytes(content)
  source = data.open_source(name, 'train')
  found = [source[i] for i in range(len(source))]
  assert [i for i, e in enumerate(found) if 'error' in e] == [*range(5, 10)]
  assert f'{path}: the row group 1 cannot be read' in found[5]['error']
  assert source.where(6) == f'{path}: row 6'
  assert source.where(15) == f'{tmp_path}/train-00001-of-00002.parquet: row 1'
  with pytest.raises(ValueError, match='over 1%'):
    convert(name, str(tmp_path / 'target'))
  assert convert(name, str(tmp_path / 'target'), tolerated=0.5)['written'] == 19


def test_a_row_without_an_image_is_one_bad_example(examples, tmp_path):
  pictures = [{'bytes': e['image'], 'path': None} for e in examples]
  pictures[2], pictures[4] = None, {'bytes': None, 'path': None}
  pictures[6] = {'bytes': None, 'path': 'gone.png'}
  table = pa.table({'image': pa.array(pictures), 'caption': ['a'] * 24})
  pq.write_table(table, tmp_path / 'a.parquet')
  found = everything(f'parquet:{tmp_path}/a.parquet')
  assert [i for i, e in enumerate(found) if 'error' in e] == [2, 4, 6]
  assert "the column 'image' of the row is empty" in found[2]['error']
  assert 'gone.png cannot be read' in found[6]['error']


def test_text_that_is_not_utf_8_is_a_bad_example(examples, tmp_path):
  captions = pa.array([b'caf\xe9', *[b'a'] * 23]).view(pa.string())
  pq.write_table(table_of(examples).set_column(1, 'caption', captions), tmp_path / 'a.parquet')
  found = everything(f'parquet:{tmp_path}/a.parquet')
  assert "the column 'caption' cannot be read" in found[0]['error'] and 'error' not in found[1]


def test_what_cannot_be_opened_is_named(examples, tmp_path):
  path = tmp_path / 'a.parquet'
  pq.write_table(table_of(examples), path)
  content = path.read_bytes()
  for damaged in (content[:-3], content[:50], b'', b'PAR1'):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r'config\.data\.name = .*a\.parquet is no whole Parquet'):
      data.open_source(f'parquet:{path}', 'train')
  path.write_bytes(content)
  pq.write_table(table_of(examples).drop(['caption']), tmp_path / 'b.parquet')
  with pytest.raises(ValueError, match=r"b\.parquet lacks the columns \['caption'\] of .*a\.parq"):
    data.open_source(f'parquet:{tmp_path}/*.parquet', 'train')
  pq.write_table(table_of(examples)[:0], path)
  with pytest.raises(ValueError, match='it holds no example'):
    data.open_source(f'parquet:{path}', 'train')
  (tmp_path / 't-00001-of-00003.parquet').write_bytes(content)
  with pytest.raises(ValueError, match='1 of 3 shards are there'):
    data.open_source(f'parquet:{tmp_path}/t-*.parquet', 'train')


def test_a_row_group_that_is_large_is_told(examples, name, monkeypatch, caplog):
  logging.use_absl_handler()
  monkeypatch.setattr(parquet, '_LARGE_GROUP', 100)
  with caplog.at_level('WARNING'):
    data.open_source(name, 'train')
  assert 'row_group_size=100' in caplog.text


def test_without_pyarrow_the_extra_is_named(name, monkeypatch):
  for module in ('parquet', 'columns', 'hugging_face'):
    monkeypatch.delitem(sys.modules, f'contrastive_jax.data.sources.{module}', raising=False)
  monkeypatch.delattr('contrastive_jax.data.sources.parquet')
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  with pytest.raises(ValueError, match=r"needs pyarrow .*pip install 'contrastive-jax\[parquet\]'"):
    data.open_source(name, 'train')


def test_a_bucket_is_read_as_a_disk_is(name, examples, tmp_path):
  bucket = fsspec.filesystem('memory')
  bucket.put(f'{tmp_path}/', '/parquet', recursive=True)
  remote = name.replace(str(tmp_path), 'memory://parquet')
  source = data.open_source(remote, 'train')
  assert [source[i] for i in range(len(source))] == examples
  received = cloudpickle.loads(cloudpickle.dumps(source))
  assert received[20] == examples[20]
  with pytest.raises(ValueError, match='no file matches'):
    data.open_source(remote, 'test')


@pytest.mark.parametrize('style', ['arrayrecord', 'jsonl', 'webdataset'])
def test_it_converts(style, name, examples, tmp_path):
  report = convert(name, f'{style}:{tmp_path}/converted', shard_size=9)
  assert everything(report['name']) == examples


def test_a_mixture_with_itself_has_one_id_per_row(name, examples):
  mixed = data.open_source(f'{name}*1+{name}*2', 'train')
  assert mixed.rows == len(examples)
  assert {mixed[i]['id'] for i in range(len(mixed))} == {*range(len(examples))}


def test_what_is_written_has_the_types_of_hugging_face(examples, tmp_path):
  own = [
    {'id': i, 'image': examples[i % 24]['image'], 'caption': f'a {i}', 'more': {'tags': ['b']}}
    for i in range(250)
  ]
  own[3]['score'] = np.float32(0.5)
  parquet.write(str(tmp_path / 'a.parquet'), own)
  file = pq.ParquetFile(tmp_path / 'a.parquet')
  assert [file.metadata.row_group(i).num_rows for i in range(3)] == [100, 100, 50]
  text = {'_type': 'Value', 'dtype': 'string'}
  assert json.loads(file.schema_arrow.metadata[b'huggingface'])['info']['features'] == {
    'image': {'_type': 'Image'},
    'caption': text,
    'more': {'tags': [text]},
    'score': {'_type': 'Value', 'dtype': 'float32'},
  }
  assert data.open_source(f'parquet:{tmp_path}/a.parquet', 'train[score>0.4]').values('id') == [3]
  own[7]['caption'] = 7
  with pytest.raises(TypeError, match=r"the field 'caption' cannot be written: .*arrayrecord"):
    parquet.write(str(tmp_path / 'b.parquet'), own)
  assert not (tmp_path / 'b.parquet').exists()
