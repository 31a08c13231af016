"""A run that was stopped at any place goes on as if it had not been, whatever it reads."""

import contextlib
import itertools

import numpy as np
import pytest

from contrastive_jax import data

B, LAST = 4, 24


def letters(texts):
  return np.array([[len(text), ord(text[0])] for text in texts], np.int32)


def open_batches(source, rows=None, workers=0):
  batches, _ = data.training_batches(
    source,
    letters,
    batch_size=B,
    image_size=8,
    captions={'caption' if 'caption' in source[0] else 'captions': 1.0},
    crop=(0.5, 1.0),
    seed=3,
    rows=rows,
    workers=workers,
  )
  return contextlib.closing(batches)


def positions(count=20):
  return np.random.default_rng(0).choice(LAST, count, replace=False).tolist()


def assert_same(batch, expected, rows=slice(None)):
  assert batch.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(batch[name], array[rows])


@pytest.fixture
def straight(open_anew):
  """The batches of a run that nothing stopped."""
  with open_batches(open_anew()) as batches:
    return [next(batches) for _ in range(LAST + 2)]


HALVES = np.arange(B)[::2], np.arange(B)[1::2]


def test_resume_is_exact_at_any_place(open_anew, straight):
  """For two processes, for one that goes on where they stopped, and for two that go on from it."""
  with contextlib.ExitStack() as stack:
    enter = lambda rows: stack.enter_context(open_batches(open_anew(), rows))  # noqa: E731
    parts, whole = [enter(rows) for rows in HALVES], enter(None)
    for place in positions():
      for part, rows in zip(parts, HALVES, strict=True):
        part.set_state({'batch': place})
        assert_same(next(part), straight[place], rows)
      whole.set_state(parts[0].get_state())
      assert_same(next(whole), straight[place + 1])
      parts[1].set_state(whole.get_state())
      assert parts[1].get_state() == {'batch': place + 2}


def check_workers(open_anew, straight, places):
  """Each resumption starts two processes, so a place is resumed by one of the three in turn."""
  for place, rows in zip(places, itertools.cycle([None, *HALVES]), strict=False):
    with open_batches(open_anew(), rows, workers=2) as batches:
      batches.set_state({'batch': place})
      assert_same(next(batches), straight[place], slice(None) if rows is None else rows)


@pytest.mark.slow
def test_resume_is_exact_with_workers(open_anew, straight):
  check_workers(open_anew, straight, positions())


@pytest.mark.parametrize('open_anew', ['webdataset'], indirect=True)
def test_workers_of_a_source_resume(open_anew, straight):
  check_workers(open_anew, straight, positions(1))
