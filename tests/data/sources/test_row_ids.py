import pytest
from hypothesis import given
from hypothesis import strategies as st

from contrastive_jax import data
from contrastive_jax.data.sources.row_ids import RowIds, RowRange, cut, whole_files

RANGES = st.lists(
  st.tuples(st.sampled_from('abc'), st.integers(0, 9), st.integers(0, 6)).map(
    lambda each: RowRange(each[0], each[1], each[1] + each[2])
  ),
  max_size=6,
)


def rows_of(ranges):
  return [(each.file, row) for each in ranges for row in range(each.start, each.stop)]


@given(RANGES)
def test_records_of_one_row_have_one_id(ranges):
  ids, rows = RowIds(ranges), rows_of(ranges)
  found = {}
  for number, row in enumerate(rows):
    assert found.setdefault(row, ids[number]) == ids[number]
  assert sorted(found.values()) == list(range(ids.rows))


@given(RANGES, st.integers(0, 40), st.integers(0, 40))
def test_a_cut_has_the_rows_of_the_records(ranges, start, stop):
  assert rows_of(cut(ranges, start, stop)) == rows_of(ranges)[start:stop]


def test_without_repeats_ids_count_the_records():
  ids = RowIds(whole_files('abc', [3, 0, 4]))
  assert [ids[number] for number in range(7)] == list(range(ids.rows)) == list(range(7))


@pytest.mark.parametrize('name', ['emoji', 'jsonl', 'arrayrecord', 'webdataset'])
def test_a_split_that_repeats_its_examples_repeats_their_ids(name, examples, write):
  """As a sum of slices does, which no selection by field shows."""
  name = 'emoji:heldout_composition' if name == 'emoji' else write(name, examples)
  source = data.open_source(name, 'train[12:20]+train[16:24]+train[12:20]')
  assert len(source) == 24 and source.rows == 12
  ids = source.values('id')
  assert ids[:8] == ids[16:] and ids[4:8] == ids[8:12] and set(ids) == set(range(12))
  assert [source.position(number) for number in range(24)] == list(range(24))


def test_a_mixture_of_the_same_data_shares_its_ids(examples, write):
  """Whatever the names of the parts, and where one holds only some files of another."""
  name = write('jsonl', examples)
  parts = [name, name.replace('*', '00001'), 'emoji:heldout_composition']
  parts += ['tfds:emoji:heldout_composition']
  mixture = data.open_source('+'.join(f'{part}*{i}' for i, part in enumerate(parts, 1)), 'train')
  count = len(data.open_source('emoji', 'heldout_composition'))
  assert mixture.rows == len(examples) + count
  places, found = {}, set()
  for number in range(len(mixture)):
    identity = mixture[number]['id']
    assert places.setdefault(identity, mixture.where(number)) == mixture.where(number)
    found.add(mixture.position(number))
  assert len(set(places.values())) == mixture.rows and set(places) == set(range(mixture.rows))
  assert found == set(range(len(examples) + 10 + 2 * count))
