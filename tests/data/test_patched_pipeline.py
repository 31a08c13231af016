"""Batches of images as patches: laws of the pipeline, whatever the shape of a batch."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data import images

SIZES = ((24, 24), (40, 12), (10, 50), (64, 32), (17, 23))


class Examples(list):
  cached = True


def picture(number):
  noise = np.random.default_rng(number).integers(0, 256, (*SIZES[number % 5], 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(noise).save(buffer, 'PNG')
  return buffer.getvalue()


def examples(count, bad=(), cached=True):
  made = Examples(
    {'id': i, 'image': picture(i)[: 30 if i in bad else None], 'caption': f'caption {i}'}
    for i in range(count)
  )
  made.cached = cached
  return made


def letters(texts):
  return np.array([[len(text), ord(text[-1])] for text in texts], np.int32)


SHAPES = data.shapes_of_budget(4, (6, 9, 16), (8,), 2)


def batches(source, **options):
  options = {'seed': 0, 'captions': {'caption': 1}, 'shapes': SHAPES, 'batch_size': 4} | options
  return data.training_batches(source, letters, **options)


def flat(batch):
  """A batch as named arrays."""
  return {k: v for k, v in batch.items() if k != 'image'} | batch['image']._asdict()


def assert_same(one, other):
  one, other = flat(one), flat(other)
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])


def test_each_batch_has_one_length_and_what_evaluation_sees():
  source, shapes = examples(60), data.BatchShapes(SHAPES, 0)
  iterator, _ = batches(source)
  seen = []
  for step in range(6):
    batch, shape = next(iterator), shapes.at(step)
    assert batch['image'].pixels.shape == (shape.batch_size, shape.length, 8, 8, 3)
    assert batch['image'].grid.shape == (shape.batch_size, 2)
    expected = data.DecodedPatches(source, shape.length, 8)[batch['id']]
    for one, other in zip(batch['image'], expected, strict=True):
      np.testing.assert_array_equal(one, other)
    seen += batch['id'].tolist()
  # Two rounds of ten, six and four images are parts of an epoch.
  assert len(seen) == len({*seen}) == 40


def test_an_epoch_visits_every_example_once():
  iterator, _ = batches(examples(20))
  epochs = [np.concatenate([next(iterator)['id'] for _ in SHAPES]) for _ in range(3)]
  assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
  assert not np.array_equal(epochs[0], epochs[1])


def test_crops_have_other_aspects_and_follow_the_seed():
  source = examples(20, cached=False)
  crop = {'crop': (0.3, 0.6)}
  one, same, other = (next(batches(source, **crop, seed=seed)[0]) for seed in (0, 0, 1))
  assert_same(one, same)
  assert other['image'].pixels.shape != one['image'].pixels.shape or not np.array_equal(
    one['image'].pixels, other['image'].pixels
  )
  grids = np.concatenate([next(batches(source, **crop, seed=s)[0])['image'].grid for s in range(9)])
  assert len(np.unique(grids, axis=0)) > 6


def test_a_crop_is_within_its_range():
  image = Image.new('RGB', (300, 100))
  for position in np.random.default_rng(0).random((200, 4)):
    left, top, right, bottom = images.crop_box(image, position, (0.3, 0.6))
    assert 0 <= left < right <= 300.001 and 0 <= top < bottom <= 100.001
    width, height = right - left, bottom - top
    area, aspect = width * height / 30_000, width / height / 3
    assert 0.3 - 1e-3 <= area <= 0.6 + 1e-3 and 3 / 4 - 1e-3 <= aspect <= 4 / 3 + 1e-3


def test_processes_together_feed_the_batches_of_one():
  whole, _ = batches(examples(400, bad={7, 9}), crop=(0.5, 1.0))
  halves = [
    batches(
      examples(400, bad={7, 9}),
      crop=(0.5, 1.0),
      rows=lambda size, part=part: np.arange(size).reshape(2, -1)[part],
    )[0]
    for part in range(2)
  ]
  for _ in range(70):
    expected, found = flat(next(whole)), [flat(next(part)) for part in halves]
    for name, array in expected.items():
      np.testing.assert_array_equal(np.concatenate([own[name] for own in found]), array)


@pytest.mark.parametrize('consumed', [1, 5])
def test_resumed_equals_never_stopped(consumed):
  straight, _ = batches(examples(400, bad={7, 9}), crop=(0.5, 1.0))
  for _ in range(consumed):
    next(straight)
  resumed, counted = batches(examples(400, bad={7, 9}), crop=(0.5, 1.0))
  resumed.set_state(straight.get_state())
  for _ in range(70):
    assert_same(next(straight), next(resumed))
  assert counted.skipped >= 2


@pytest.mark.slow
def test_workers_give_the_batches_of_none():
  alone, _ = batches(examples(400, bad={7}))
  working, _ = batches(examples(400, bad={7}), workers=2)
  with contextlib.closing(working):
    alone.set_state({'batch': 5})
    working.set_state(alone.get_state())
    for _ in range(7):
      assert_same(next(alone), next(working))


class Shards(Examples):
  """Examples in six shards."""

  def shard_sizes(self):
    return [len(self) // 6] * 6

  def reading_ahead(self, stretch, stretches):
    return self


@pytest.mark.slow
def test_shuffled_shards_give_the_same_batches_to_any_processes_and_workers():
  source = Shards(examples(120))
  options = {'shuffle': 'shards', 'shuffle_buffer': 40}
  alone, _ = batches(source, **options)
  halves = [
    batches(source, rows=lambda size, part=part: np.arange(size)[part::2], **options)[0]
    for part in range(2)
  ]
  working, _ = batches(source, workers=2, **options)
  seen = []
  with contextlib.closing(working):
    for _ in range(18):
      batch = next(alone)
      assert_same(batch, next(working))
      for part, half in enumerate(halves):
        own = next(half)
        np.testing.assert_array_equal(own['id'], batch['id'][part::2])
        np.testing.assert_array_equal(own['image'].pixels, batch['image'].pixels[part::2])
      seen += batch['id'].tolist()
  assert sorted(seen) == list(range(120))
