import contextlib
import gc
import io
import itertools
import pathlib
import resource
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from absl import logging
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data import images, pipeline
from contrastive_jax.data.shared_memory import Slots
from tests.doubles import slow_but


class Examples(list):
  cached = True


def picture(value):
  buffer = io.BytesIO()
  Image.new('RGB', (12, 12), (value % 256, 0, 0)).save(buffer, 'PNG')
  return buffer.getvalue()


def examples(count, bad=()):
  return Examples(
    {
      'id': i,
      'image': picture(i)[: 30 if i in bad else None],
      'caption': f'caption {i // 2}',
      'tags': ['one', 'two'],
    }
    for i in range(count)
  )


def letters(texts):
  return np.array([[len(t), ord(t[-1])] for t in texts], np.int32)


def batches(source, tokenize=letters, **options):
  options = {'batch_size': 4, 'seed': 0, 'captions': {'caption': 1}, 'crop': (0.5, 1.0)} | options
  return data.training_batches(source, tokenize, image_size=8, **options)


def test_batches_have_shapes_and_ids_of_equal_captions():
  iterator, _ = batches(examples(10), batch_size=10)
  batch = next(iterator)
  assert batch['image'].shape == (10, 8, 8, 3) and batch['image'].dtype == np.uint8
  assert batch['tokens'].shape == (10, 2) and batch['same'].shape == (10,)
  captions = batch['id'] // 2
  np.testing.assert_array_equal(
    batch['same'][:, None] == batch['same'], captions[:, None] == captions
  )


def test_every_epoch_visits_every_example_once_in_another_order():
  iterator, _ = batches(examples(12))
  epochs = [np.concatenate([next(iterator)['id'] for _ in range(3)]) for _ in range(3)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(12))
  assert not np.array_equal(epochs[0], epochs[1])
  assert list(epochs[0]) != sorted(epochs[0])


def test_without_a_crop_training_sees_what_evaluation_sees():
  source = examples(6)
  batch = next(batches(source, batch_size=6, crop=None)[0])
  expected = data.evaluation_images(source, 8)
  np.testing.assert_array_equal(batch['image'], expected[batch['id']])


@pytest.mark.parametrize('rows', [[[0, 1], [2, 3]], [[0, 3], [1, 2]], [[0], [1], [2], [3]]])
def test_processes_together_feed_the_batches_of_one(rows):
  """Whatever rows the mesh gives them: so shards are disjoint, and an epoch is whole."""
  whole, _ = batches(examples(10), captions={'caption': 1, 'tags': 1})
  parts = [
    batches(examples(10), captions={'caption': 1, 'tags': 1}, rows=np.array(part))[0]
    for part in rows
  ]
  for _ in range(6):
    expected, fed = next(whole), [next(part) for part in parts]
    for name, array in expected.items():
      joined = np.empty_like(array)
      for part, own in zip(rows, fed, strict=True):
        joined[part] = own[name]
      np.testing.assert_array_equal(joined, array)


def assert_same(one, other):
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize('consumed', [0, 1, 5])
def test_resumed_equals_never_stopped(consumed):
  """At examples of which some are bad, so that others stand in for them."""
  options = {'captions': {'caption': 1, 'tags': 1}, 'batch_size': 40}
  straight, _ = batches(examples(400, bad={7, 9}), **options)
  for _ in range(consumed):
    next(straight)
  resumed, _ = batches(examples(400, bad={7, 9}), **options)
  resumed.set_state(straight.get_state())
  for _ in range(12):
    assert_same(next(straight), next(resumed))


def test_workers_give_the_batches_of_none_and_resume_each_other():
  options = {'captions': {'caption': 1, 'tags': 1}, 'batch_size': 50}
  options['tokenize'] = data.ClipTokenizer(length=3)  # which cuts the captions
  alone, skips = batches(examples(400, bad={7, 9}), **options)
  working, counted = batches(examples(400, bad={7, 9}), workers=2, **options)
  with contextlib.closing(working):
    for position in (0, 6):  # An epoch has 8.
      alone.set_state({'batch': position})
      working.set_state(alone.get_state())
      for _ in range(5):
        assert_same(next(alone), next(working))
  assert working.get_state() == alone.get_state()
  counts = [(c.seen, c.skipped, c.truncated) for c in (counted, skips)]
  assert counts[0] == counts[1] and skips.skipped >= 2 and 0 < skips.truncated < skips.seen


def test_a_batch_of_a_worker_stays_what_it_is_while_it_is_held():
  """Its memory serves again only when no array shows it, and there are batches enough without."""
  alone, _ = batches(examples(400), batch_size=50)
  working, _ = batches(examples(400), batch_size=50, workers=1)
  with contextlib.closing(working):
    held = [next(working) for _ in range(20)]
    rows = [next(working)['image'][7:] for _ in range(20)]
  working.set_state({'batch': 0})
  with contextlib.closing(working):
    assert_same(next(working), held[0])
  for batch in held:
    assert_same(batch, next(alone))
  for part in rows:
    np.testing.assert_array_equal(part, next(alone)['image'][7:])


def test_a_slot_is_free_when_no_array_shows_it():
  slots = Slots(1, (2, 3))
  count = next(i for i in itertools.count() if slots.take(i) is None)
  array = slots.lend(0)
  view = array[1:].reshape(3)
  del array
  gc.collect()
  assert slots.take(0) is None
  del view
  gc.collect()
  assert slots.take(count) is not None


@pytest.mark.slow
def test_stopped_workers_leave_no_file_open():
  def opened():
    gc.collect()
    return len(list(pathlib.Path('/proc/self/fd').iterdir()))

  iterator, _ = batches(examples(40), workers=1)
  counts = []
  for _ in range(3):
    next(iterator)
    iterator.close()
    counts.append(opened())
  assert counts[2] <= counts[1]


def test_examples_that_are_waited_for_are_read_at_the_same_time():
  class Far(Examples):
    reading = most = 0

    def __getitem__(self, number):
      self.reading += 1
      self.most = max(self.most, self.reading)
      time.sleep(0.01)
      self.reading -= 1
      return super().__getitem__(number)

  far, near = Far(examples(200, bad={7})), examples(200, bad={7})
  one, other = (batches(source, batch_size=100, threads=0)[0] for source in (far, near))
  for _ in range(3):
    assert_same(next(one), next(other))
  assert far.most > 4


def test_what_stops_a_worker_stops_the_run():
  iterator, _ = batches(examples(400, bad=set(range(400))), batch_size=50, workers=1)
  with contextlib.closing(iterator), pytest.raises(ValueError, match='in a row cannot be used'):
    next(iterator)


@pytest.mark.parametrize(
  'given', ['a script', pytest.param('standard input', marks=pytest.mark.slow)]
)
def test_workers_that_die_as_they_start_are_an_error(tmp_path, given):
  """Whether the main module starts them again or is none; what they are sent fills their pipes."""
  code = textwrap.dedent("""
    import sys
    sys.path.insert(0, '.')
    from contrastive_jax import data
    class Examples(list):
      cached = True
    batches, _ = data.training_batches(
      Examples([{'id': i, 'image': b'', 'caption': 'a'} for i in range(8)]),
      lambda texts: [[len(text)] for text in texts], batch_size=4, image_size=8,
      captions={'caption': 1}, prompts=['{}' + 'a' * 2**18], seed=0,
      workers=1)
    next(batches)
  """)
  (tmp_path / 'script.py').write_text(code)
  script = str(tmp_path / 'script.py') if given == 'a script' else '-'
  ran = subprocess.run(
    [sys.executable, script], input=code, capture_output=True, text=True, timeout=120
  )
  last = ran.stderr.strip().splitlines()[-1]
  assert ran.returncode == 1 and last.startswith(
    'RuntimeError: a worker of config.data.workers = 1'
  )
  assert 'if __name__ == "__main__":' in last


def test_each_text_is_drawn_from_its_own_fields():
  captions = [{'caption': 1}, {'join(tags)': 1}]
  batch = next(batches(examples(10), captions=captions, keep=2, batch_size=10)[0])
  names, tags = batch['tokens'][:, 0], batch['tokens'][:, 1]
  assert names[:, 0].tolist() == [len('caption 0')] * 10
  drawn = letters(['one', 'two', 'one, two', 'two, one']).tolist()
  assert all(row in drawn for row in tags.tolist())
  captions = batch['id'] // 2
  same = batch['same'][:, 0]
  np.testing.assert_array_equal(same[:, None] == same, captions[:, None] == captions)
  with pytest.raises(ValueError, match='captions are of 2 texts, and keep = 3; make them equal'):
    batches(examples(10), captions=[{'caption': 1}, {'tags': 1}], keep=3)


def ids_of(iterator, count):
  return np.concatenate([next(iterator)['id'] for _ in range(count)])


def test_rounds_without_replacement_walk_through_one_order():
  """So four rounds of a quarter see every example once, and are what an epoch is."""
  drawn = ids_of(batches(examples(40), subset=0.25, replacement=False, batch_size=10)[0], 8)
  np.testing.assert_array_equal(drawn, ids_of(batches(examples(40), batch_size=10)[0], 8))
  for epoch in drawn.reshape(2, 40):
    assert sorted(epoch) == list(range(40))


def test_rounds_with_replacement_are_drawn_independently():
  """A round has no example twice; in E rounds one is drawn Binomial(E, r) times."""
  rounds = 400
  iterator, _ = batches(examples(20), subset=0.25, batch_size=5, crop=None)
  drawn = ids_of(iterator, rounds).reshape(rounds, 5)
  assert all(len(set(round)) == 5 for round in drawn)
  counts = np.bincount(drawn.ravel(), minlength=20)
  assert counts.sum() == rounds * 5
  # Five deviations of Binomial(400, 0.25), and a variance that is its own, but for the fixed sum.
  assert np.all(np.abs(counts - 100) < 5 * 75**0.5)
  assert 0.3 < counts.var() / 75 < 2.5
  # Two rounds share what chance lets them: Hypergeometric(20, 5, 5) has mean 1.25.
  shared = [len(set(one) & set(other)) for one, other in itertools.pairwise(drawn)]
  assert 1.1 < np.mean(shared) < 1.4


@pytest.mark.parametrize('subset', [0.0, 1.5, -1, 0.01])
def test_a_subset_draws_something(subset):
  with pytest.raises(ValueError, match=r'config\.data\.subset = .* of 8 examples'):
    batches(examples(8), subset=subset)


class Endless:
  """A billion examples, made when they are asked for."""

  cached = False

  def __len__(self):
    return 10**9

  def __getitem__(self, number):
    return {'id': number, 'image': picture(number), 'caption': str(number)}


def test_a_billion_examples_are_shuffled_in_no_memory():
  resident = lambda: int(pathlib.Path('/proc/self/statm').read_text().split()[1])  # noqa: E731
  next(batches(examples(10))[0])
  before = resident()
  iterator, _ = batches(Endless(), batch_size=20)
  ids = ids_of(iterator, 3)
  assert (resident() - before) * resource.getpagesize() < 50e6
  assert len(set(ids)) == 60 and ids.max() > 5e8 and ids.min() < 5e8


def test_bad_examples_are_skipped_counted_and_named(caplog):
  logging.use_absl_handler()
  source = examples(400, bad={7})
  source[9]['caption'] = ' '
  iterator, skips = batches(source, batch_size=50)
  with caplog.at_level('WARNING'):
    seen = np.concatenate([next(iterator)['id'] for _ in range(7)])
  assert skips.skipped <= 2
  seen = np.concatenate([seen, next(iterator)['id']])
  assert skips.skipped >= 2 and not {7, 9} & set(seen)
  assert {7, 9} == {record.args[0] for record in caplog.records if 'skipped' in record.msg}


def test_over_one_percent_of_bad_examples_stops_the_run():
  iterator, _ = batches(examples(100, bad={3, 50}))
  with pytest.raises(ValueError, match=r'2 of \d+ examples cannot be used'):
    for _ in range(25):
      next(iterator)


def test_prompts_are_tokens_and_not_another_caption():
  plain, _ = batches(examples(8), batch_size=8)
  iterator, _ = batches(examples(8), batch_size=8, prompts=('a {}', 'one more {} it is'))
  one, other = next(plain), next(iterator)
  np.testing.assert_array_equal(one['same'], other['same'])
  longer = other['tokens'][:, 0] - one['tokens'][:, 0]
  assert set(longer) == {2, 15}


def test_all_captions_are_kept_where_they_are_asked_for():
  source = examples(8)
  for example in source:
    example['caption'] = ['a', 'bb', 'ccc'][: 1 + example['id'] % 3]
  batch = next(batches(source, batch_size=8, keep=3)[0])
  assert batch['tokens'].shape == (8, 3, 2) and batch['same'].shape == (8, 3)
  lengths = {0: [1, 1, 1], 1: [1, 2, 1], 2: [1, 2, 3]}
  for number, tokens in zip(batch['id'], batch['tokens'], strict=True):
    assert tokens[:, 0].tolist() == lengths[number % 3]


def test_edited_texts_are_of_the_same_captions_and_resume():
  augment = data.TextAugmentation(swap=0.5, delete=0.5)
  source = examples(8)
  for example in source:
    example['caption'] = f'one two three four five six {example["caption"]}'
  plain, edited, resumed = (
    batches(source, batch_size=8, keep=3, augment_texts=edits)[0]
    for edits in (None, augment, augment)
  )
  resumed.set_state({'batch': 1})
  next(edited), next(plain)
  one, other, again = next(plain), next(edited), next(resumed)
  np.testing.assert_array_equal(one['same'], other['same'])
  np.testing.assert_array_equal(one['tokens'][:, 0], other['tokens'][:, 0])
  assert np.any(one['tokens'][:, 1:] != other['tokens'][:, 1:])
  for name in ('tokens', 'image', 'id'):
    np.testing.assert_array_equal(other[name], again[name])


@pytest.mark.parametrize('workers', slow_but([0, 1], 0))
def test_captions_that_lose_their_end_are_counted(workers):
  source = examples(6)
  for number in (1, 4):
    source[number]['caption'] = 'two words and more'
  iterator, skips = data.training_batches(
    source,
    data.ClipTokenizer(length=5),
    batch_size=6,
    image_size=8,
    captions={'caption': 1},
    seed=0,
    workers=workers,
  )
  with contextlib.closing(iterator):
    for _ in range(3):
      assert 'truncated' not in next(iterator)
  assert (skips.seen, skips.truncated) == (18, 6)


def test_all_bad_does_not_hang():
  iterator, _ = batches(examples(8, bad=set(range(8))))
  with pytest.raises(ValueError, match='cannot be used'):
    next(iterator)


def test_a_mistake_in_the_config_is_not_a_bad_picture():
  with pytest.raises(ValueError, match=r'area = '):
    batches(examples(4), crop=(0.5, 2.0))
  with pytest.raises(ValueError, match=r"captions.*\['title'\]"):
    batches(examples(4), captions={'title': 1})
  for pictures in ({}, {'image': np.zeros([8, 8, 3])}):
    source = examples(4)
    for example in source:
      del example['image']
      example |= pictures
    with pytest.raises(ValueError, match=r"'image' is (missing|ndarray).*'caption', 'id'"):
      batches(source)


@pytest.mark.parametrize('crop', [None, (0.5, 1.0)])
def test_an_example_without_a_picture_is_skipped(crop):
  source = examples(400)
  source[7]['image'] = None
  iterator, skips = batches(source, batch_size=100, crop=crop)
  assert 7 not in ids_of(iterator, 4) and skips.skipped == 1


@pytest.mark.parametrize('limit', [0, 2**28])
def test_pictures_are_decoded_once_where_they_fit_in_memory(limit, monkeypatch):
  monkeypatch.setattr(pipeline, 'CACHED_BYTES', limit)
  decode, calls = images.decode, []
  monkeypatch.setattr(images, 'decode', lambda data: calls.append(data) or decode(data))
  ids_of(batches(examples(8), crop=None, threads=0)[0], 6)
  assert len(calls) == (8 if limit else 24)


def test_more_examples_than_ids_are_refused():
  with pytest.raises(ValueError, match=r'has 3000000000 examples.*train\[:2147483648\]'):
    batches(range(3 * 10**9))


def test_data_that_stays_away_is_noticed_soon():
  asked = []

  class Away:
    cached = False

    def __len__(self):
      return 10**9

    def __getitem__(self, number):
      asked.append(number)
      return {'id': number, 'error': 'the bucket failed 5 times'}

  with pytest.raises(ValueError, match=r'no example of \d+ can be used; .*failed 5 times'):
    batches(Away())
  assert len(asked) < 100
