"""Batches of several shapes: a function of the seed and the step, with the same budget."""

import pickle

import pytest

from contrastive_jax.data import BatchShape, BatchShapes, shapes_of_budget

LENGTHS = (16, 25, 36, 36)


def shapes(seed=0, **options):
  return BatchShapes(shapes_of_budget(48, LENGTHS, (8,), **options), seed)


def test_a_budget_gives_shorter_sequences_more_images():
  found = shapes_of_budget(48, LENGTHS, (8, 6), 8)
  assert [shape.length for shape in found] == [16, 16, 25, 25, 36, 36, 36, 36]
  assert [shape.patch for shape in found] == [8, 6] * 4
  assert {shape.length: shape.batch_size for shape in found} == {16: 104, 25: 64, 36: 48}
  for shape in found:
    assert 48 * 36 - 8 * shape.length < shape.batch_size * shape.length <= 48 * 36


def test_every_round_has_each_shape_once_in_an_order_of_its_own():
  own = shapes()
  rounds = [[own.at(4 * turn + index) for index in range(4)] for turn in range(20)]
  assert all(sorted(found) == sorted(own.shapes) for found in rounds)
  assert len({tuple(found) for found in rounds}) > 4
  assert [shapes(1).at(step) for step in range(40)] != [own.at(step) for step in range(40)]
  again = pickle.loads(pickle.dumps(own))
  assert [again.at(step) for step in range(40)] == [own.at(step) for step in range(40)]


def test_batches_tile_the_stream_of_examples():
  own, taken, images = shapes(multiple=8), [], 0
  for step in range(4 * 5):
    assert own.images(step) == images
    first, size = own.first(step), own.at(step).batch_size
    taken += range(first, first + size)
    images += size
  assert sorted(taken) == list(range(5 * own.per_round)) and len(taken) == images


@pytest.mark.parametrize('step', [0, 3, 10])
def test_one_shape_is_a_plain_batch(step):
  plain = BatchShapes([BatchShape(32)], seed=0)
  assert (plain.at(step), plain.first(step), plain.images(step)) == ((32, 0, 0), *[32 * step] * 2)
