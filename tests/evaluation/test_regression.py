"""The regression probe."""

import numpy as np
import pytest
from sklearn import linear_model

from contrastive_jax.evaluation.regression import read_numbers, regress, ridge_probe

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 5))
NUMBERS = FEATURES @ [1.0, -2.0, 0.5, 0.0, 3.0] + 7 + RNG.normal(size=60)


def test_weights_are_those_of_scikit_learn():
  probe = ridge_probe(FEATURES, NUMBERS)
  truth = linear_model.Ridge(alpha=probe.l2).fit(FEATURES, NUMBERS)
  np.testing.assert_allclose(probe.weights, truth.coef_, rtol=1e-6)
  assert probe.bias == pytest.approx(truth.intercept_)
  expected = np.mean(np.abs(truth.predict(FEATURES) - NUMBERS))
  assert probe.error(FEATURES, NUMBERS) == pytest.approx(expected)


def test_the_penalty_is_chosen_on_held_out_examples():
  """Of noise nothing is learned; of numbers without noise, all."""
  assert ridge_probe(FEATURES, RNG.normal(size=60)).l2 > 10
  assert ridge_probe(FEATURES, FEATURES[:, 0] - 3).error(FEATURES, FEATURES[:, 0] - 3) < 1e-6


def test_baselines_are_the_median_and_another_number():
  numbers = {'ink': [*range(30)], 'weight': [100.0 * number for number in range(30)]}
  splits = {'': numbers, 'held': {'ink': [4, 8], 'weight': [400.0, 900.0]}}
  features = {'': np.zeros((30, 2)), 'held': np.zeros((2, 2))}
  found = regress(features, splits, ['weight', 'ink'])
  assert found['held/weight_mae'] == pytest.approx((1050 + 550) / 2)
  assert found['held/weight_median_mae'] == pytest.approx((1050 + 550) / 2)
  assert found['held/weight_by_ink_mae'] == pytest.approx(50, abs=1)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({}, r"numbers names 'ink', which split 'a' has not"),
    ({'ink': [1, 'much']}, "'ink', which is no number in split 'a': .*much"),
    ({'ink': [1, float('nan')]}, "'ink', of which split 'a' has values that are not finite"),
  ],
)
def test_what_is_no_number_is_refused(values, message):
  with pytest.raises(ValueError, match=message):
    read_numbers("split 'a'", values, ['ink'])
  with pytest.raises(ValueError, match='2 features and 1 numbers'):
    ridge_probe(np.zeros((2, 1)), [1.0])
