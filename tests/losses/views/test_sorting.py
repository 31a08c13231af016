"""The soft permutation of a relaxed odd-even network, in float64."""

import jax
import numpy as np
import pytest

from contrastive_jax.losses.views.sorting import soft_sort
from tests.losses import dense

STEEPNESS = 2.0


@pytest.fixture(scope='module')
def sorted_softly():
  """Values, and soft_sort of them with steepness 2, with 1e9, and in float32."""
  values = np.random.default_rng(0).normal(size=(3, 7))

  @jax.jit
  def both(values):
    return soft_sort(values, steepness=STEEPNESS), soft_sort(values, steepness=1e9)

  with jax.enable_x64(True):
    soft, hard = jax.device_get(both(values))
  narrow = soft_sort(values.astype('bfloat16'))
  return values, soft, hard, narrow


def test_the_permutation_is_doubly_stochastic_and_gives_the_order(sorted_softly):
  values, (order, permutation), *_ = sorted_softly
  for axis in (1, 2):
    np.testing.assert_allclose(permutation.sum(axis), 1, rtol=1e-12)
  assert permutation.min() > 0
  np.testing.assert_allclose(order, np.einsum('bi,bir->br', values, permutation), rtol=1e-12)
  # With each comparison on its own.
  with jax.enable_x64(True):
    expected = dense.soft_permutation(values, STEEPNESS)
  np.testing.assert_allclose(permutation, expected, rtol=1e-12)


def test_a_steep_network_sorts(sorted_softly):
  values, _, (order, permutation), _ = sorted_softly
  np.testing.assert_allclose(order, np.sort(values), atol=1e-7)
  expected = np.argsort(values, 1)[:, None] == np.arange(7)[:, None]  # item i has rank r
  np.testing.assert_allclose(permutation, expected, atol=1e-7)


def test_sums_are_float32(sorted_softly):
  assert {a.dtype for a in sorted_softly[-1]} == {np.dtype('float32')}


def test_one_value_is_sorted_and_a_steepness_of_0_is_refused():
  order, permutation = soft_sort(np.ones((2, 1), 'f'))
  assert order.tolist() == [[1], [1]] and permutation.tolist() == [[[1]], [[1]]]
  with pytest.raises(ValueError, match='steepness = 0; use a number over 0'):
    soft_sort(np.ones(3, 'f'), steepness=0)
