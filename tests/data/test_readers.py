"""What a batch holds: the inputs that a model names, from sources with and without pictures."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data
from tests.doubles import slow_but

TEXTS = ('tokens', 'second_tokens')


def letters(texts):
  return np.array([[len(t), ord(t[-1])] for t in texts], np.int32)


class Rows(list):
  cached = True


def rows(count=8, **changes):
  """Examples without pictures; `changes` replaces fields of the fourth."""
  made = [
    {
      'id': i,
      'caption': f'caption {i}',
      'other': ['x' * (i + 1)],
      'size': 0.5 * i,
      'node': i,
      'group': 'ab'[i % 2],
    }
    for i in range(count)
  ]
  made[3] |= changes
  return Rows(made)


def batches(source, **options):
  options = {'batch_size': 8, 'seed': 0, 'captions': {'caption': 1}} | options
  return data.training_batches(source, letters, **options)


def ordered(batch):
  """A batch in the order of its ids."""
  order = np.argsort(batch['id'])
  return {name: array[order] for name, array in batch.items()}


# Workers pass whatever arrays there are, see test_pipeline.py.
@pytest.mark.parametrize('workers', slow_but([0, 1], 0))
def test_a_pair_of_texts_needs_no_picture(workers):
  iterator, _ = batches(rows(), inputs=TEXTS, second_captions={'other': 1}, workers=workers)
  batch = ordered(next(iterator))
  iterator.close()
  assert batch.keys() == {'tokens', 'second_tokens', 'same', 'id', 'position'}
  np.testing.assert_array_equal(batch['second_tokens'][:, 0], np.arange(1, 9))
  np.testing.assert_array_equal(batch['tokens'][:, 1], [ord(str(i)) for i in range(8)])
  assert batch['second_tokens'].dtype == np.int32 and batch['same'].shape == (8,)


def test_prompts_are_of_the_first_text():
  batch = next(batches(rows(), inputs=TEXTS, second_captions={'other': 1}, prompts=('a {}!',))[0])
  assert set(batch['tokens'][:, 1]) == {ord('!')} and set(batch['second_tokens'][:, 1]) == {
    ord('x')
  }


def test_negatives_are_wrong_captions_with_the_same_prompt():
  source = rows(caption='cat')
  source[2]['caption'] = 'a man and a dog'
  options = {'inputs': ('tokens',), 'prompts': ('x {}', 'yy {}!')}
  plain = ordered(next(batches(source, **options)[0]))
  batch = ordered(next(batches(source, negatives=3, **options)[0]))
  np.testing.assert_array_equal(batch['tokens'], plain['tokens'])
  wrong = batch['negative_tokens']
  assert wrong.shape == (8, 3, 2) and wrong.dtype == np.int32
  # One word alone has no wrong caption; two have one, of the same letters.
  np.testing.assert_array_equal(wrong[3], np.tile(batch['tokens'][3], (3, 1)))
  lengths = batch['tokens'][2, 0] + np.array([len('woman') - len('man'), 0, len('person') - 3])
  assert set(wrong[2, :, 0]) == set(lengths)
  np.testing.assert_array_equal(wrong[2, :, 1] == ord('!'), batch['tokens'][2, 1] == ord('!'))
  several = next(batches(source, negatives=1, keep=2, **options)[0])
  assert several['tokens'].shape == (8, 2, 2) and several['negative_tokens'].shape == (8, 1, 2)


def test_images_alone_need_no_text():
  buffer = io.BytesIO()
  Image.new('RGB', (12, 12)).save(buffer, 'PNG')
  source = Rows({'id': i, 'image': buffer.getvalue()} for i in range(8))
  iterator, _ = data.training_batches(
    source, None, batch_size=8, image_size=8, seed=0, inputs=('image',)
  )
  batch = next(iterator)
  assert batch.keys() == {'image', 'id', 'position'} and batch['image'].shape == (8, 8, 8, 3)


def test_numbers_and_nodes_are_arrays():
  options = {'inputs': ('numbers', 'nodes'), 'numbers': ('size', 'node'), 'nodes': ('node',)}
  source = rows(size='1.5')  # as tables give it
  batch = ordered(next(batches(source, **options)[0]))
  np.testing.assert_array_equal(batch['numbers'][3], np.float32([1.5, 3]))
  np.testing.assert_array_equal(batch['nodes'], np.arange(8)[:, None])
  assert batch['numbers'].dtype == np.float32 and batch['nodes'].dtype == np.int32


def test_labels_are_equal_where_the_field_is():
  source = rows(group=7)
  batch = ordered(next(batches(source, inputs=('tokens',), labels='group')[0]))
  groups = np.array([str(example['group']) for example in source])
  np.testing.assert_array_equal(
    batch['labels'][:, None] == batch['labels'], groups[:, None] == groups
  )
  assert batch['labels'].dtype == np.int32 and batch['labels'].shape == (8,)


def test_classes_are_numbered_in_the_order_of_their_names():
  source = rows(group='b')
  names = sorted({str(example['group']) for example in source})
  options = {'inputs': ('tokens',), 'labels': 'group', 'classes': len(names)}
  batch = ordered(next(batches(source, **options)[0]))
  expected = [names.index(str(example['group'])) for example in source]
  np.testing.assert_array_equal(batch['labels'], np.int32(expected))
  with pytest.raises(ValueError, match=rf"classes = 9, and the field 'group' .*; use {len(names)}"):
    batches(source, **options | {'classes': 9})


NUMBERS = {'inputs': ('numbers',), 'numbers': ('size',)}
NODES = {'inputs': ('nodes',), 'nodes': ('node',)}
LABELS = {'inputs': ('tokens',), 'labels': 'group'}
PAIRS = {'inputs': TEXTS, 'second_captions': {'other': 1}}


@pytest.mark.parametrize(
  ('options', 'changes', 'message'),
  [
    (LABELS, {'group': None}, "the label 'group' is missing"),
    (LABELS, {'group': ['a']}, "the label 'group' is a list"),
    (NUMBERS, {'size': 'tall'}, "size = 'tall' is no number of type float32"),
    (NUMBERS, {'size': 'nan'}, "size = 'nan' is no finite number"),
    (NODES, {'node': 0.5}, 'node = 0.5 is no finite number of type int32'),
    (NODES, {'node': 2**31}, 'is no number of type int32'),
    (PAIRS, {'other': []}, 'the caption is empty'),
  ],
)
def test_what_an_example_lacks_makes_it_bad(options, changes, message, caplog):
  iterator, skips = batches(rows(400, **changes), batch_size=100, **options)
  ids = np.concatenate([next(iterator)['id'] for _ in range(4)])
  assert 3 not in ids and skips.skipped == 1 and message in caplog.text


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'inputs': ('image',), 'image_size': 8}, r"'image' is missing.* rows name it .*filepath"),
    ({'inputs': ('sound',)}, r"the model reads \['sound'\]; inputs are .*'second_tokens'"),
    ({'inputs': TEXTS}, r'config\.data\.second_captions = \{\} names nothing'),
    ({'inputs': TEXTS, 'second_captions': {'no': 1}}, r"data\.second_captions = .* names \['no'\]"),
    ({'inputs': ('numbers',)}, r'config\.data\.numbers = \(\) names no field'),
    ({'inputs': ('nodes',), 'nodes': ('no',)}, r"config\.data\.nodes = .* names \['no'\]"),
    ({'inputs': ('tokens',), 'labels': 'no', 'classes': 2}, "data.labels = 'no' is no field"),
    ({'inputs': ('tokens',), 'labels': 'no'}, r"config\.data\.labels = 'no' is no field"),
  ],
)
def test_a_field_that_is_not_there_is_a_mistake_in_the_config(options, message):
  with pytest.raises(ValueError, match=message):
    batches(rows(), **options)


def test_the_stand_in_of_a_bad_example_has_its_own_id_and_position():
  iterator, skips = batches(rows(400, node='none'), batch_size=40, **NODES)
  for _ in range(10):
    batch = next(iterator)
    np.testing.assert_array_equal(batch['id'], batch['nodes'][:, 0])
    np.testing.assert_array_equal(batch['position'], batch['id'])
  assert skips.skipped == 1 and batch['id'].dtype == batch['position'].dtype == np.int32


def test_ids_are_those_of_the_rows_and_positions_those_of_the_split():
  source = data.open_source('emoji', 'heldout_composition[:6]+heldout_composition[:6]')
  batch = next(batches(source, batch_size=12, inputs=('tokens',))[0])
  assert sorted(batch['position']) == list(range(12))
  np.testing.assert_array_equal(batch['id'], batch['position'] % 6)


@pytest.mark.parametrize('style', ['jsonl', 'csv', 'webdataset'])
def test_every_format_may_have_no_pictures(style, tmp_path):
  texts = [{'caption': f'text {i}', 'other': 'x' * (i + 1)} for i in range(8)]
  path = tmp_path / f'texts.{"tar" if style == "webdataset" else style}'
  if style == 'webdataset':
    with tarfile.open(path, 'w') as archive:
      for number, row in enumerate(texts):
        content = json.dumps(row).encode()
        member = tarfile.TarInfo(f'{number}.json')
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
  elif style == 'csv':
    path.write_text('caption,other\n' + ''.join(f'{t["caption"]},{t["other"]}\n' for t in texts))
  else:
    path.write_text(''.join(json.dumps(row) + '\n' for row in texts))
  source = data.open_source(f'{style}:{path}', 'train')
  batch = ordered(next(batches(source, inputs=TEXTS, second_captions={'other': 1})[0]))
  np.testing.assert_array_equal(batch['second_tokens'][:, 0], np.arange(1, 9))
  assert 'texts' in source.where(3)
