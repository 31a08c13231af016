"""A quote in a table takes along no more than its own row, and a row of several lines stays one."""

import csv
import io

import pytest
from absl import logging
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from contrastive_jax import data

LONE = '"Sunset over the bay'


@pytest.fixture
def captions(tmp_path):
  """A function from the text of a table to captions by row, None for those of bad rows."""
  Image.new('RGB', (9, 9)).save(tmp_path / 'i.png')

  def read(text, ending='csv'):
    path = tmp_path / f'pairs.{ending}'
    path.write_text(text, encoding='utf-8', newline='')
    source = data.open_source(f'csv:{path}', 'train')
    return [source[i].get('caption') for i in range(len(source))]

  return read


def table(rows, separator, image_first=True, header=('filepath', 'title')):
  """Rows as they are, (separator, caption) without any quoting."""
  order = slice(None) if image_first else slice(None, None, -1)
  lines = [header, *(('i.png', row) for row in rows)]
  return ''.join(separator.join(line[order]) + '\n' for line in lines)


@pytest.mark.parametrize('image_first', [True, False])
@pytest.mark.parametrize('separator', [',', '\t'])
@pytest.mark.parametrize(
  'odd',
  [
    {30: LONE},
    {30: LONE, 170: 'a 27" screen on a desk'},
    {30: LONE, 170: 'a screen of 27"'},
    {30: LONE, 31: LONE, 170: '"quoted" and more'},
    {199: LONE},
  ],
)
def test_a_lone_quote_costs_its_row_at_most(captions, odd, separator, image_first):
  rows = [odd.get(i, f'caption number {i}') for i in range(200)]
  read = captions(table(rows, separator, image_first))
  assert len(read) == 200
  if separator == '\t':
    assert read == rows  # There a quote is a letter.
  else:
    bad = {i for i, row in odd.items() if row.startswith('"')}
    assert {i for i, caption in enumerate(read) if caption is None} == bad
    assert all(caption in (None, row) for caption, row in zip(read, rows, strict=True))


@pytest.mark.parametrize('delimiter', [',', '\t'])
@pytest.mark.parametrize('image_first', [True, False])
@settings(
  max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(st.sampled_from('ab "\',\t\n.\\é')), min_size=1, max_size=6))
def test_what_a_csv_writer_quotes_is_read(captions, delimiter, image_first, texts):
  """RFC 4180's quotes, as pandas and Excel write them, line ends and separators in them."""
  buffer = io.StringIO(newline='')
  writer = csv.writer(buffer, delimiter=delimiter, lineterminator='\n', quoting=csv.QUOTE_ALL)
  for row in (('filepath', 'title'), *(('i.png', text) for text in texts)):
    writer.writerow(row if image_first else row[::-1])
  read = captions(buffer.getvalue())
  # A line of a text that has as many tabs as a row is the one thing that is told apart wrongly.
  assert read == texts or (delimiter == '\t' and any('\t' in text for text in texts))


@pytest.mark.parametrize(
  ('row', 'caption'),
  [
    (r'"a \"big\" cat"', 'a "big" cat'),
    (r'"a \"big, bad\" cat"', 'a "big, bad" cat'),
    (r'"big \""', 'big "'),
    ('"a ""big"" cat"', 'a "big" cat'),
    ('a "big" cat', 'a "big" cat'),
    ('"a "big" cat"', None),
    ('"big" cat', None),
    (r'a cat\dog', r'a cat\dog'),
  ],
)
def test_quotes_within_quotes_are_read_or_bad(captions, row, caption):
  assert captions(table(['one', row, 'three'], ',')) == ['one', caption, 'three']


def test_a_quote_that_is_never_closed_is_looked_for_in_so_many_bytes(tmp_path):
  """Where neither tabs nor endings tell the rows that follow."""
  rows = [f'{i},{LONE if i == 3 else "x" * 99}\n' for i in range(9_000)]
  (tmp_path / 'a.csv').write_text('image,caption\n' + ''.join(rows))
  assert len(data.open_source(f'csv:{tmp_path}/a.csv', 'train')) == 9_000


def test_far_fewer_rows_than_lines_are_told(captions, caplog):
  logging.use_absl_handler()
  with caplog.at_level('WARNING'):
    assert captions(table(['"a\nb\nc"', '"d\n\ne"'], ',')) == ['a\nb\nc', 'd\n\ne']
    assert captions(table(['"a\nb"', 'c'], ',')) == ['a\nb', 'c']
  assert [record.args[1:] for record in caplog.records] == [(2, 6)]
