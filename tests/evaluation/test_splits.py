"""Laws of a split that is evaluated: complete, or refused by the example and the field."""

import json
import logging
import re

import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.evaluation.splits import captions_of, read_split, warn_of_repeats
from tests import two_processes

SIZE = 8
ABSENT = object()


def make_source(folder, values, field='caption', pictures=None):
  """Examples with one value each; of equal pictures where `pictures` has equal numbers."""
  lines = []
  for row, value in enumerate(values):
    color = pictures[row] if pictures else row
    Image.new('RGB', (SIZE, SIZE), (20 * color, 0, 0)).save(folder / f'{row}.png')
    lines.append({'image': f'{row}.png'} | ({} if value is ABSENT else {field: value}))
  (folder / 'split.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  return data.open_source(f'jsonl:{folder}/{{split}}.jsonl', 'split')


def read(source, texts=('caption',), labels=()):
  return read_split(source, SIZE, setting='splits', name='test', texts=texts, labels=labels)


@pytest.mark.parametrize(
  ('odd', 'why'),
  [
    (None, 'missing or empty'),
    (ABSENT, 'missing or empty'),
    ('', 'missing or empty'),
    ([], 'missing or empty'),
    (' ', 'a text of it is empty'),
    (['one', None], 'a text of it is empty'),
    (2012, 'no text but int'),
    (['one', 2], 'no text but int'),
    ('\ud83d', 'surrogates not allowed'),
    ({'en': 2}, 'no text but int'),
    ({'en': 'one'}, 'a dict where others have texts'),
  ],
)
@pytest.mark.parametrize('row', [0, 2])
def test_a_text_that_cannot_be_read_is_refused(tmp_path, odd, why, row):
  values = ['a', ['b', 'c'], 'd', 'e']
  assert read(make_source(tmp_path, values)).fields['caption'] == values
  values[row] = odd
  match = rf"config\.evaluation\.splits: split 'test' .*'caption'.* 1 of 4 .*example {row}: .*{why}"
  with pytest.raises(ValueError, match=match):
    read(make_source(tmp_path, values))


def test_one_language_of_several_is_a_field(tmp_path):
  values = [{'en': 'a', 'zh': 'b'}, {'en': 'c', 'zh': 'd'}]
  split = read(make_source(tmp_path, values, 'names'), ('names', 'names.zh', 'names.de'))
  assert split.fields == {'names': values, 'names.zh': ['b', 'd']}


def test_some_bad_examples_are_named_and_all_are_counted(tmp_path):
  with pytest.raises(ValueError, match=r'5 of 6 .*example 1: .*example 3: [^;]*; and 2 more'):
    read(make_source(tmp_path, ['a', *range(5)]))


@pytest.mark.parametrize(
  ('odd', 'why'), [(None, 'missing'), (ABSENT, 'missing'), (['a'], 'a list is no label')]
)
def test_a_label_that_cannot_be_read_is_refused(tmp_path, odd, why):
  values = ['', 'b', 3]  # Texts are strict, and classes of any name or number.
  assert read(make_source(tmp_path, values, 'kind'), (), ['kind']).fields['kind'] == values
  with pytest.raises(ValueError, match=rf"'kind'.* 1 of 3 .*example 1: .*{why}"):
    read(make_source(tmp_path, ['', odd, 3], 'kind'), (), ['kind'])


@pytest.mark.parametrize('nothing', [ABSENT, None, ''])
def test_a_field_that_no_example_has_is_none_of_the_split(tmp_path, nothing):
  assert read(make_source(tmp_path, 3 * [nothing])).fields == {}


def test_a_damaged_picture_is_named_by_its_split(tmp_path):
  source = make_source(tmp_path, ['a', 'b', 'c'])
  (tmp_path / '1.png').write_bytes((tmp_path / '1.png').read_bytes()[:40])
  with pytest.raises(ValueError, match=r"config\.evaluation\.splits: split 'test': "):
    read(source)


def test_copies_of_a_picture_with_other_captions_are_told(tmp_path, caplog):
  def told(captions):
    source = make_source(tmp_path, captions, pictures=[0, 0, 1, 2])
    split = read(source)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
      warn_of_repeats('test', split.digests, split.fields['caption'])
    return caplog.text

  assert "split 'test': 2 of 4 rows repeat 1 images" in told(['a', 'b', 'c', 'd'])
  # Equal captions are right for all of their pictures.
  assert not told(['a', 'a', 'c', 'c'])


def test_candidates_are_the_captions_that_training_can_use(tmp_path):
  source = make_source(tmp_path, ['a', None, ['b', 'c'], 7, 'a'])
  assert captions_of(source, 'caption') == ['a', 'b']
  with pytest.raises(ValueError, match=r"'title' of the training data.*captions = \{\} does"):
    captions_of(source, 'title')


SHARES = """
import sys
from functools import partial
import jax
from contrastive_jax import data
from contrastive_jax.data import images
from contrastive_jax.evaluation.batches import in_batches, own_rows
from contrastive_jax.evaluation.splits import read_split
from contrastive_jax.runtime import processes
from contrastive_jax.sharding.mesh import make_mesh
coordinator, number, name = sys.argv[1:]
decode, calls = images.decode, []
images.decode = lambda image: calls.append(image) or decode(image)
with processes.distributed(coordinator, 2, int(number)):
  mesh, source = make_mesh(), data.open_source(name, 'split')
  share = partial(own_rows, batch_size=8, mesh=mesh)
  split = read_split(source, 8, setting='splits', name='test', texts=['caption'], share=share)
  print('checked', len(calls), 'distinct', len({row.tobytes() for row in split.digests}))
  double = jax.jit(lambda x: x.sum((1, 2, 3), 'int32'), out_shardings=jax.P())
  with jax.set_mesh(mesh):
    print('sums', in_batches(double, split.images, 8, mesh).tolist(), 'decoded', len(calls))
"""


@pytest.mark.slow
def test_two_processes_decode_a_share_each_and_fail_together(tmp_path):
  source = make_source(tmp_path, [*'abcdefghijk'], pictures=[0, *range(10)])
  images = data.evaluation_images(source, SIZE)
  sums = images.sum((1, 2, 3), 'int32').tolist()
  name = f'jsonl:{tmp_path}/{{split}}.jsonl'
  codes, printed = two_processes.run(SHARES, name, devices=2)
  assert codes == [0, 0], printed
  # Of 11 rows in batches of 8 the first process has 4 and 3; both know all digests.
  for text, share in zip(printed, (7, 4), strict=True):
    assert f'checked {share} distinct 10' in text
    assert f'sums {sums} decoded {share}' in text  # small, so decoded once
  (tmp_path / '5.png').write_bytes(b'damaged')  # a row of the second process
  codes, printed = two_processes.run(SHARES, name, devices=2)
  assert codes == [1, 1], printed
  assert all(re.search("ValueError: .*split 'test': example 5 cannot", text) for text in printed)
