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
    ('emoji', 'train[vendor=noto]+heldout_style', 'select from one split'),
    ('emoji', 'train[vendor=noto,group]', "cannot read 'group'"),
    ('emoji', 'train[score>0.3]', r"cannot read 'score>0\.3'; write field=value .*a bound, filter"),
    ('emoji', 'train[score<=0.3]+train', r"cannot read 'score<=0\.3'"),
  ],
)
def test_what_is_not_there_is_named(name, split, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    data.open_source(name, split, str(tmp_path))


def test_a_number_is_selected_as_it_is_written():
  records = [{'label': 7}, {'label': np.int64(8)}, {'label': 0.5}, {'label': True}, {'label': '7'}]
  chosen = lambda where: data.Source(records, where).values('id')  # noqa: E731
  assert chosen('label=7') == [0, 4] and chosen('label!=7') == [1, 2, 3]
  assert chosen('label=8') == [1] and chosen('label=0.5') == [2] and chosen('label=True') == [3]


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
