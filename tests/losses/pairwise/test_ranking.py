import itertools

import jax
import numpy as np
import pytest

from contrastive_jax.losses import pairwise
from tests.doubles import slow_but
from tests.losses import reference


def dense(scores, positive, real):
  """Ranks along the last axis; `real` of the columns."""
  number = positive & ~np.isnan(scores)
  best = np.max(scores, 1, keepdims=True, where=number, initial=-np.inf)
  equal = scores == best
  counted = ~(scores <= best) & real, equal & ~positive & real, equal & positive
  return [np.sum(counts, 1) for counts in counted]


FAST = [(5, 7, '4x2'), (60, None, '4'), (5, None, 'none'), (60, 7, '1')]


@pytest.mark.parametrize(
  ('classes', 'block_size', 'mesh'),
  slow_but(itertools.product((5, 60), (None, 7), ('none', '1', '4', '4x2')), *FAST),
)
def test_ranks_are_the_dense_ones(mesh, block_size, classes):
  random = np.random.default_rng(classes)
  # Small integers: scores are exact, and many tie.
  x = random.integers(-1, 2, (24, 3)).astype(np.float32)
  y = random.integers(-1, 2, (56, 3)).astype(np.float32)
  x[3] = y[5] = np.nan
  ids = random.integers(-1, classes, 24), random.integers(-1, classes, 56)
  ranks = pairwise.ranks(x, y, ids, block_size=block_size, mesh=reference.make_mesh(mesh))
  scores, positive = x @ y.T, (ids[0][:, None] == ids[1]) & (ids[0] >= 0)[:, None]
  for side, own in enumerate(ranks):
    real = ids[side] >= 0
    of_side = (scores, positive) if side == 0 else (scores.T, positive.T)
    for found, expected in zip(own, dense(*of_side, ids[1 - side] >= 0), strict=True):
      np.testing.assert_array_equal(np.asarray(found)[real], expected[real])


def test_both_rounds_share_one_product():
  # Products of two instructions could differ in their last bits, and a positive exceed itself.
  x, ids = np.ones((64, 8), np.float32), np.arange(64)
  program = jax.jit(lambda x: pairwise.ranks(x, x, ids, block_size=16)).lower(x)
  assert program.as_text().count('dot_general') == 1


def test_a_block_larger_than_its_counters():
  ones, ids = np.ones((2, 1), np.float32), np.arange(2)
  many = np.full((70_000, 1), 2.0, np.float32)
  other = np.where(np.arange(70_000) < 2, np.arange(70_000), 9)
  many[:2] = 1
  rows, _ = pairwise.ranks(ones, many, (ids, other), block_size=100_000)
  np.testing.assert_array_equal(rows.above, 69_998)
  np.testing.assert_array_equal(rows.tied, 1)
