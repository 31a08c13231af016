"""Folders of Hugging Face's datasets are read without its library."""

import json

import cloudpickle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contrastive_jax import data
from contrastive_jax.data.convert import convert
from tests.data.sources.writers import hugging_face_table, write_saved

FEATURES = {'image': {'_type': 'Image'}, 'label': {'_type': 'ClassLabel', 'names': ['cat', 'dog']}}


def everything(name, split='train'):
  source = data.open_source(name, split)
  return [source[i] for i in range(len(source))]


@pytest.fixture
def table(examples):
  own = [
    {'image': e['image'], 'text': e['caption'], 'label': i % 2} for i, e in enumerate(examples)
  ]
  return hugging_face_table(own, FEATURES)


@pytest.fixture
def expected(examples):
  return [
    {'id': i, 'image': e['image'], 'caption': e['caption'], 'label': ('cat', 'dog')[i % 2]}
    for i, e in enumerate(examples)
  ]


def test_a_folder_of_save_to_disk(table, expected, tmp_path):
  write_saved(tmp_path, table[:9], table[9:])
  name = f'datasets:{tmp_path}'
  assert everything(name) == expected
  assert everything(name, 'train[8:10]') == [e | {'id': i} for i, e in enumerate(expected[8:10])]
  assert len(data.open_source(name, 'train[label=dog]')) == 12
  source = data.open_source(name, 'train')
  assert source.cached
  assert source.where(10) == f'{tmp_path}/data-00001-of-00002.arrow: row 1'
  assert source.shard_sizes() == [9, 15]
  assert 'image' not in source.fields(3)
  sent = cloudpickle.dumps(source)
  assert len(sent) < 20_000 and cloudpickle.loads(sent)[17] == expected[17]
  with pytest.raises(ValueError, match="holds one split, 'train', and is asked for 'test'"):
    data.open_source(name, 'test')


def test_a_folder_of_splits(table, expected, tmp_path):
  write_saved(tmp_path / 'train', table[:20])
  write_saved(tmp_path / 'test', table[20:], split='test')
  (tmp_path / 'dataset_dict.json').write_text('{"splits": ["train", "test"]}')
  assert everything(f'datasets:{tmp_path}') == expected[:20]
  captions = [e['caption'] for e in expected]
  test = data.open_source(f'datasets:{tmp_path}', 'test')
  assert test.values('caption') == captions[20:]
  for name in (f'datasets:{tmp_path}:test', f'datasets:{tmp_path}/{{split}}:test'):
    assert data.open_source(name, 'train').values('caption') == captions[20:]
  assert data.open_source(f'datasets:{tmp_path}/test', 'train').values('caption') == captions[20:]
  assert len(data.open_source(f'datasets:{tmp_path}:test[:50%]', 'train')) == 2
  with pytest.raises(ValueError, match=r"no split 'dev'; use one of \['train', 'test'\]"):
    data.open_source(f'datasets:{tmp_path}', 'dev')


@pytest.mark.parametrize(
  'form',
  [
    'data/{}-0000{}-of-00002.parquet',
    '{}-0000{}-of-00002.parquet',
    '{}/000{}.parquet',
    'data/{}/{}.parquet',
  ],
)
def test_the_layouts_of_the_hub(form, table, expected, tmp_path):
  for split, rows in (('train', table[:16]), ('test', table[16:])):
    for number in range(2):
      path = tmp_path / form.format(split, number)
      path.parent.mkdir(parents=True, exist_ok=True)
      half = len(rows) // 2
      pq.write_table(rows[half * number : half * (number + 1)], path, row_group_size=3)
  (tmp_path / 'README.md').write_text('a card')
  name = f'datasets:{tmp_path}'
  assert everything(name) == expected[:16]
  captions = [e['caption'] for e in expected]
  assert data.open_source(name, 'test').values('caption') == captions[16:]
  with pytest.raises(ValueError, match=r"no split 'dev'; use one of \['test', 'train'\]"):
    data.open_source(name, 'dev')
  path.unlink()
  if '-of-' in form:
    with pytest.raises(ValueError, match='1 of 2 shards are there'):
      data.open_source(name, 'test')


def test_one_file_per_split(table, expected, tmp_path):
  pq.write_table(table, tmp_path / 'test.parquet')
  found = data.open_source(f'datasets:{tmp_path}:test', 'train')
  assert found.values('caption') == [e['caption'] for e in expected]


def test_images_may_be_paths(examples, tmp_path):
  (tmp_path / '0.png').write_bytes(examples[0]['image'])
  kind = pa.struct({'bytes': pa.binary(), 'path': pa.string()})
  paths = [{'bytes': None, 'path': '0.png'}, {'bytes': None, 'path': 'gone.png'}, None]
  write_saved(tmp_path, pa.table({'image': pa.array(paths, kind), 'caption': ['a', 'b', 'c']}))
  assert not data.open_source(f'datasets:{tmp_path}', 'train').cached
  found = everything(f'datasets:{tmp_path}')
  assert found[0]['image'] == examples[0]['image']
  assert ['error' in example for example in found] == [False, True, True]


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda content: content[:-8], 'cut off after 4 batches'),  # without the mark of its end
    (lambda content: content[:-500], 'no whole Arrow stream'),
    (lambda content: b'', 'no whole Arrow stream'),
    (lambda content: b'ARROW1' + content, 'no whole Arrow stream'),
  ],
)
def test_a_damaged_stream_is_named(damage, message, table, tmp_path):
  write_saved(tmp_path, table)
  (path,) = tmp_path.glob('*.arrow')
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=rf'config\.data\.name = .*data-00000.* {message}'):
    data.open_source(f'datasets:{tmp_path}', 'train')


def test_what_cannot_be_opened_is_named(table, tmp_path):
  with pytest.raises(ValueError, match='holds no state'):
    data.open_source(f'datasets:{tmp_path}', 'train')
  write_saved(tmp_path, table[:9], table[9:].drop(['label']))
  with pytest.raises(ValueError, match=r'00001-of-00002\.arrow has the columns'):
    data.open_source(f'datasets:{tmp_path}', 'train')
  write_saved(tmp_path, table[:9])
  (tmp_path / 'data-00000-of-00001.arrow').unlink()
  with pytest.raises(ValueError, match=r'missing.*data-00000-of-00001\.arrow'):
    data.open_source(f'datasets:{tmp_path}', 'train')
  for content in ('[]', '{', '{"_data_files": []}'):
    (tmp_path / 'state.json').write_text(content)
    with pytest.raises(ValueError, match=r'state\.json'):
      data.open_source(f'datasets:{tmp_path}', 'train')


def test_it_converts(table, expected, tmp_path):
  write_saved(tmp_path / 'saved', table)
  report = convert(f'datasets:{tmp_path}/saved', str(tmp_path / 'converted'), shard_size=9)
  assert everything(report['name']) == expected


def test_what_the_library_writes_is_read(examples, tmp_path):
  """With Hugging Face's own library, where it is installed."""
  datasets = pytest.importorskip('datasets')
  features = datasets.Features(
    {
      'image': datasets.Image(),
      'label': datasets.ClassLabel(names=['cat', 'dog']),
      'caption': datasets.Value('string'),
    }
  )
  rows = {
    'image': [{'bytes': e['image'], 'path': None} for e in examples],
    'label': [i % 2 for i in range(len(examples))],
    'caption': [e['caption'] for e in examples],
  }
  whole = datasets.Dataset.from_dict(rows, features=features)
  datasets.DatasetDict(train=whole, test=whole.select([3, 5])).save_to_disk(tmp_path / 'saved')
  whole.to_parquet(tmp_path / 'train-00000-of-00001.parquet')
  expected = [
    {key: e[key] for key in ('id', 'image', 'caption')} | {'label': ('cat', 'dog')[i % 2]}
    for i, e in enumerate(examples)
  ]
  assert everything(f'datasets:{tmp_path}/saved') == expected
  assert everything(f'datasets:{tmp_path}') == expected
  test = everything(f'datasets:{tmp_path}/saved', 'test')
  assert [e['image'] for e in test] == [examples[i]['image'] for i in (3, 5)]


def test_the_json_of_types_may_be_of_another_form(table, tmp_path):
  for content in ('{', '[]', '{"info": 3}', json.dumps({'info': {'features': []}})):
    pq.write_table(table.replace_schema_metadata({'huggingface': content}), tmp_path / 'a.parquet')
    assert data.open_source(f'parquet:{tmp_path}/a.parquet', 'train').values('label')[:2] == [0, 1]
