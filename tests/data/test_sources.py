import operator
import shutil

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data import emoji


def test_a_selection_keeps_ids_and_fulfils_its_conditions():
  everything = data.open_source('emoji', 'heldout_style')
  selected = data.open_source('emoji', 'heldout_style[group=food-drink]')
  others = data.open_source('emoji', 'heldout_style[group!=food-drink]')
  assert set(selected.values('group')) == {'food-drink'}
  assert len(selected) + len(others) == len(everything)
  assert sorted(selected.values('id') + others.values('id')) == everything.values('id')
  for i in range(0, len(selected), 17):
    assert everything[selected[i]['id']]['caption'] == selected[i]['caption']


def test_a_sum_takes_the_examples_of_each_selection_in_turn():
  part = data.open_source('emoji', 'heldout_style[group=food-drink]')
  everything = data.open_source('emoji', 'heldout_style')
  both = data.open_source('emoji', 'heldout_style[group=food-drink]+heldout_style')
  assert both.values('id') == part.values('id') + everything.values('id')


def test_texts_are_strings_and_images_encoded():
  example = data.open_source('emoji', 'train')[0]
  assert isinstance(example['image'], bytes) and isinstance(example['caption'], str)
  assert all(isinstance(tag, str) for tag in example['tags'])


@pytest.mark.parametrize(
  ('name', 'split', 'message'),
  [
    ('no_such_set', 'train', r"config\.data\.name = 'no_such_set'.*Use 'emoji'"),
    ('tfds:/no/such/folder', 'train', r"config\.data\.name = '/no/such/folder'.*dataset_info"),
    ('emoji', 'test', r"no split 'test'.*heldout_style"),
    ('emoji', 'train[color=red]', r"no field 'color'.*vendor"),
    ('emoji', 'train[vendor=acme]', 'selects no example'),
    ('emoji', 'train[vendor=noto]+test', r"no split 'test'"),
    ('emoji', 'train+heldout_style[vendor=noto]', r'\[vendor=noto\] selects no example'),
    ('emoji', 'train[vendor=noto,group]', "cannot read 'group'"),
    ('emoji', 'train[score>0.3]', r"\[score>0\.3\]: the data has no field 'score'"),
    ('emoji', 'train[score<=0.3]+train', r"\[score<=0\.3\]: the data has no field 'score'"),
    ('emoji', 'train[caption>a]', r"\[caption>a\]: 'a' in 'caption>a' is no number"),
    ('emoji', 'train[caption>nan]', r"'nan' in 'caption>nan' is no number"),
    ('emoji', 'train[vendor>=1,vendor=noto]', r"no example; no number is \{'vendor': 'noto'\}"),
  ],
)
def test_what_is_not_there_is_named(name, split, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    data.open_source(name, split, str(tmp_path))


def test_a_sum_selects_from_several_splits():
  split = 'openmoji[group=flags]+heldout_style+openmoji[skin_tone=dark]+openmoji[group=flags]'
  parts = [data.open_source('emoji', part) for part in split.split('+')]
  together = data.open_source('emoji', split)
  assert len(together) == sum(map(len, parts)) and together.cached
  for field in ('hexcode', 'vendor', 'image'):
    assert together.values(field) == [value for part in parts for value in part.values(field)]
  ids, flags = together.values('id'), len(parts[0])
  assert ids[:flags] == ids[-flags:] and len(set(ids)) == len(ids) - flags
  places = [source.where(k) for source in (*parts,) for k in range(len(source))]
  assert [together.where(k) for k in range(len(together))] == places
  assert sum(together.shard_sizes()) == len(together)
  # A process parses a split once, whatever sums it is part of.
  assert all(map(operator.is_, together.values('image'), parts[0].values('image')))


def test_a_sum_of_whole_splits_reads_the_files_of_each(tmp_path):
  for split in ('one', 'two'):
    (tmp_path / f'{split}.jsonl').write_text(f'{{"image": "{split}.png", "caption": "{split}"}}\n')
  source = data.open_source(f'jsonl:{tmp_path}/{{split}}.jsonl', 'two+one')
  assert source.values('caption') == ['two', 'one']


def test_a_number_is_selected_as_it_is_written():
  records = [{'label': 7}, {'label': np.int64(8)}, {'label': 0.5}, {'label': True}, {'label': '7'}]
  chosen = lambda where: data.Source(records, where).values('id')  # noqa: E731
  assert chosen('label=7') == [0, 4] and chosen('label!=7') == [1, 2, 3]
  assert chosen('label=8') == [1] and chosen('label=0.5') == [2] and chosen('label=True') == [3]


SCORES = [0.2, '0.3', 0.30001, np.float32(0.5), 1, None, '', 'unknown', float('nan'), -1e-3]


@pytest.mark.parametrize(
  ('where', 'expected'),
  [
    ('score>0.3', [2, 3, 4]),
    ('score>=0.3', [1, 2, 3, 4]),
    ('score<0.3', [0, 9]),
    ('score<=0.3', [0, 1, 9]),
    ('score > 2e-1, score<=1', [1, 2, 3, 4]),
    ('score<0', [9]),
    ('score>0.3,kind=b', [3]),
    ('score=unknown|0.3', [1, 7]),
    ('score!=unknown|0.3,kind=b', [3, 5, 9]),
    ('kind!=a,score>0.3', [3]),
    ('score=unknown', [7]),
  ],
)
def test_numbers_are_compared(where, expected):
  """Tables hold them as text; what is no number is never selected."""
  records = [{'score': score, 'kind': 'ab'[i % 2]} for i, score in enumerate(SCORES)]
  source = data.Source(records, where)
  assert source.values('id') == expected
  assert [source.position(i) for i in range(len(source))] == expected


def test_a_share_of_the_values_of_a_field_is_selected():
  """All examples of a value or none, wherever they are."""
  records = [{'kind': str(row // 2)} for row in range(1000)] + [{}]
  held, *seen = (
    set(data.Source(records, f'kind%5{sign}0').values('id')) for sign in ('=', '>', '!=')
  )
  assert held.isdisjoint(seen[0]) and held | seen[0] == {*range(1000)}
  assert seen[1] == seen[0] | {1000}  # without a value
  assert {row ^ 1 for row in held} == held and 150 < len(held) < 250
  assert held == set(data.Source(records, 'kind%5<1').values('id'))


def test_integers_are_compared_exactly():
  big = 2**60
  records = [{'row': big + i} for i in range(4)]
  assert data.Source(records, f'row>{big + 1}').values('id') == [2, 3]


def test_a_selection_reads_an_example_once():
  class Counted(list):
    reads = 0

    def __getitem__(self, number):
      self.reads += 1
      return super().__getitem__(number)

  records = Counted({'a': i, 'b': i} for i in range(50))
  assert len(data.Source(records, 'a>9,b<20,a!=11')) == 9
  assert records.reads == 51  # the first one is read for its fields too


def test_a_slice_is_selected_from():
  whole = data.open_source('emoji', 'heldout_style[:50%][group=food-drink]')
  assert 0 < len(whole) < len(data.open_source('emoji', 'heldout_style[group=food-drink]'))


def test_tfds_slices_work():
  whole = data.open_source('emoji', 'heldout_style')
  half = data.open_source('emoji', 'heldout_style[:50%]')
  assert abs(2 * len(half) - len(whole)) <= 1


@pytest.mark.parametrize('how', ['lost', 'truncated'])
def test_a_lost_or_damaged_file_is_named(tmp_path, how):
  prepared = shutil.copytree(emoji.PREPARED, tmp_path / 'prepared')
  (file,) = prepared.glob('*composition*')
  content = file.read_bytes()
  file.unlink()
  if how == 'truncated':
    file.write_bytes(content[: len(content) // 2])
  with pytest.raises(OSError, match=r'example 0 cannot be read: .*Put the file back'):
    data.open_source(str(prepared), 'heldout_composition')[0]
