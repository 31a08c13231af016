"""The hard contrastive loss: NT-Xent, and the limits of the temperature; in float64."""

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference

B, FRACTIONS = 5, (0.25, 0.5, 1.0)  # of 8 negatives
FIRST, SECOND = np.float64(reference.unit(np.random.default_rng(0), 2, B, 4))


@pytest.fixture(autouse=True)
def wide():
  with jax.enable_x64(True):
    yield


@jax.jit
def by_fraction(scale):
  """With each fraction of the negatives, and NT-Xent."""
  own = [losses.hard_contrastive(FIRST, SECOND, scale=scale, hard_fraction=f) for f in FRACTIONS]
  return *own, losses.nt_xent(FIRST, SECOND, scale=scale)


def similarities():
  """Of each anchor: the positive, and the negatives in descending order."""
  views = np.concatenate([FIRST, SECOND])
  rows, positive = views @ views.T, np.tile(np.sum(FIRST * SECOND, 1), 2)
  others = ~np.tile(np.eye(B, dtype=bool), (2, 2))
  return positive, np.sort(rows[others].reshape(2 * B, -1))[:, ::-1]


def test_fewer_negatives_cost_less_and_all_are_nt_xent():
  found = by_fraction(5.0)
  assert found[0] < found[1] < found[2]
  assert found[2] == pytest.approx(float(found[3]), rel=1e-9)


def test_a_low_temperature_leaves_the_hardest_negative():
  """τ L tends to max(0, max s − s⁺), whatever the fraction."""
  positive, negatives = similarities()
  expected = np.mean(np.maximum(negatives[:, 0] - positive, 0))
  np.testing.assert_allclose(np.divide(by_fraction(1e5), 1e5), np.full(4, expected), rtol=1e-4)


def test_a_high_temperature_weighs_all_that_are_left_alike():
  """L = log N + (mean s − s⁺) / τ + O(1 / τ²) of N candidates."""
  positive, negatives = similarities()
  for found, fraction in zip(by_fraction(1e-4), FRACTIONS, strict=False):
    left = negatives[:, : round(8 * fraction)]
    candidates = np.concatenate([positive[:, None], left], 1)
    slope = np.mean(candidates.mean(1) - positive)
    assert found == pytest.approx(np.log(candidates.shape[1]) + 1e-4 * slope, abs=1e-8)


def test_one_example_has_no_loss_and_wrong_fractions_are_refused():
  assert jax.jit(losses.hard_contrastive)(FIRST[:1], SECOND[:1], scale=1.0) == 0
  for fraction in (0.0, 1.5):
    with pytest.raises(ValueError, match=f'hard_fraction = {fraction}; use a number over 0'):
      losses.hard_contrastive(FIRST, SECOND, scale=1.0, hard_fraction=fraction)
