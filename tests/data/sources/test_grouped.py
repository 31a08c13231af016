"""Rows of one image are one example with a list of captions."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contrastive_jax import data
from contrastive_jax.data.convert import convert
from contrastive_jax.data.sources import array_record
from tests.data.sources.writers import hugging_face_table, write_images

# Image and caption per row: the rows of an image need not follow each other.
ROWS = [(0, 'a'), (1, 'b'), (0, 'c'), (2, 'd'), (2, 'e'), (1, 'f'), (0, 'g'), (3, 'h')]
CAPTIONS = [['a', 'c', 'g'], ['b', 'f'], ['d', 'e'], ['h']]


def everything(name, split='train'):
  source = data.open_source(name, split)
  return [source[i] for i in range(len(source))]


def write(style, folder, examples):
  """Writes the rows as a table, half of them in a second file; returns the name of the source."""
  write_images(folder, examples[:4])
  rows = [
    {'image': f'{i}.png', 'title': text, 'split': 'train', 'sentence': number}
    for number, (i, text) in enumerate(ROWS)
  ]
  for number, part in enumerate((rows[:4], rows[4:])):
    path = folder / f'{number}.{style}'
    if style == 'csv':
      lines = [','.join(part[0]), *(','.join(map(str, row.values())) for row in part)]
      path.write_text('\n'.join(lines))
    elif style == 'jsonl':
      path.write_text('\n'.join(map(json.dumps, part)))
    else:
      pictures = [{'bytes': examples[i]['image'], 'path': f'{i}.png'} for i, _ in ROWS]
      table = pa.Table.from_pylist(part).set_column(
        0, 'image', pa.array(pictures[4 * number : 4 * number + 4])
      )
      pq.write_table(table, path, row_group_size=3)
  return f'{style}:{folder}/{{0,1}}.{style}'


@pytest.mark.parametrize('style', ['csv', 'jsonl', 'parquet'])
def test_the_captions_of_an_image_are_a_list(style, examples, tmp_path):
  name = write(style, tmp_path, examples)
  found = everything(f'grouped:{name}')
  assert [e['caption'] for e in found] == CAPTIONS
  assert [e['image'] for e in found] == [e['image'] for e in examples[:4]]
  assert [e['id'] for e in found] == [0, 1, 2, 3]
  number = str if style == 'csv' else int
  assert found[0]['sentence'] == [number(0), number(2), number(6)]
  assert found[3]['sentence'] == number(7) and found[0]['split'] == 'train'
  source = data.open_source(f'grouped:{name}', 'train[1:]')
  assert source.values('caption') == CAPTIONS[1:]
  assert 'image' not in source.fields(0)
  assert source.shard_sizes() in ([2, 1], [1, 1, 1])  # by the file, or row group, of the first row
  assert everything(f'grouped:{name}', 'train[sentence=7]')[0]['caption'] == ['h']


def test_rows_may_be_grouped_by_any_field(examples, tmp_path):
  own = [
    {'id': row, 'image': examples[i]['image'], 'caption': text, 'image_id': i, 'none': None}
    for row, (i, text) in enumerate(ROWS)
  ]
  array_record.write(str(tmp_path / 'a.array_record'), own)
  name = f'arrayrecord:{tmp_path}/a.array_record'
  assert [e['caption'] for e in everything(f'grouped:image_id:{name}')] == CAPTIONS
  with pytest.raises(ValueError, match='without paths to group by; name a field'):
    data.open_source(f'grouped:{name}', 'train')
  for field in ('image_name', 'none'):
    with pytest.raises(ValueError, match=f"no row has a value of '{field}'"):
      data.open_source(f'grouped:{field}:{name}', 'train')
  table = hugging_face_table([{'image': e['image'], 'caption': e['caption']} for e in own])
  pictures = [{'bytes': e['image'], 'path': None} for e in own]
  table = table.set_column(0, 'image', pa.array(pictures, table.schema.field('image').type))
  pq.write_table(table, tmp_path / 'a.parquet')
  with pytest.raises(ValueError, match="no row has a value of 'image'"):
    data.open_source(f'grouped:parquet:{tmp_path}/a.parquet', 'train')


@pytest.mark.parametrize('name', ['grouped:emoji', 'grouped:', 'grouped:a:b:c', 'grouped::csv:a'])
def test_what_is_no_name_of_files_is_refused(name):
  with pytest.raises(ValueError, match='write grouped:NAME or grouped:FIELD:NAME'):
    data.open_source(name, 'train')


def test_a_row_that_cannot_be_read_is_a_bad_example_of_its_own(examples, tmp_path):
  write_images(tmp_path, examples[:1])
  rows = ['{"image": "0.png", "caption": "a"}', '{"image": ', '{"caption": "b"}']
  rows += ['{"image": "gone.png", "caption": "c"}', '{"image": "0.png", "caption": ["d", "e"]}']
  (tmp_path / 'a.jsonl').write_text('\n'.join(rows))
  source = data.open_source(f'grouped:jsonl:{tmp_path}/a.jsonl', 'train')
  found = [source[i] for i in range(len(source))]
  assert ['error' in example for example in found] == [False, True, True, True]
  assert found[0]['caption'] == ['a', 'd', 'e']
  assert source.where(3) == f'{tmp_path}/a.jsonl: row 4, gone.png'


def test_batches_hold_the_captions_of_an_image(examples, tmp_path):
  source = data.open_source(f'grouped:{write("csv", tmp_path, examples)}', 'train')
  letters = lambda texts: np.array([[ord(text)] for text in texts], np.int32)  # noqa: E731
  for shuffle in ('global', 'shards'):
    batches, _ = data.training_batches(
      source,
      letters,
      batch_size=4,
      image_size=8,
      captions={'caption': 1.0},
      keep=3,
      seed=0,
      shuffle=shuffle,
      shuffle_buffer=4,
    )
    batch = next(batches)
    found = {
      row: ''.join(map(chr, tokens[:, 0]))
      for row, tokens in zip(batch['id'].tolist(), batch['tokens'], strict=True)
    }
    assert found == {0: 'acg', 1: 'bfb', 2: 'ded', 3: 'hhh'}


def test_a_mixture_and_a_conversion(examples, tmp_path):
  name = f'grouped:{write("jsonl", tmp_path, examples)}'
  mixed = data.open_source(f'{name}*1+{name}*1', 'train')
  assert mixed.rows == 4
  report = convert(name, f'jsonl:{tmp_path}/converted')
  assert [e['caption'] for e in everything(report['name'])] == CAPTIONS
