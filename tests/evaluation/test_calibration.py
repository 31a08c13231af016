import numpy as np
import pytest

from contrastive_jax.evaluation import calibration


def drawn(size=4000, classes=4):
  """Probabilities, and labels that follow them: a calibrated classifier."""
  rng = np.random.default_rng(0)
  probabilities = rng.dirichlet(np.full(classes, 0.5), size)
  labels = (probabilities.cumsum(1) > rng.random((size, 1))).argmax(1)
  return probabilities, labels


def test_errors_are_small_for_labels_that_follow_the_probabilities():
  found = calibration.metrics(*drawn())
  assert found['expected_calibration_error'] < 0.03
  assert found['adaptive_calibration_error'] < 0.03
  assert found['classwise_calibration_error'] < 0.02
  assert abs(found['overconfidence']) < 0.02


def test_errors_grow_with_confidence_that_is_not_earned():
  probabilities, labels = drawn()
  sharp = probabilities**3
  sharp /= sharp.sum(1, keepdims=True)
  before, after = (calibration.metrics(each, labels) for each in (probabilities, sharp))
  for name in ('expected', 'adaptive', 'classwise'):
    assert after[f'{name}_calibration_error'] > before[f'{name}_calibration_error'] + 0.02
  assert after['accuracy'] == before['accuracy']
  assert after['overconfidence'] > 0.05


def test_one_bin_tells_the_overconfidence():
  confidences, right = calibration.predictions(*drawn())
  found = calibration.metrics(*drawn(), bins=1)
  for name in ('expected', 'adaptive'):
    np.testing.assert_allclose(found[f'{name}_calibration_error'], abs(found['overconfidence']))
  np.testing.assert_allclose(found['overconfidence'], confidences.mean() - right.mean())


def test_certain_predictions_have_the_rate_of_errors():
  labels = np.array([0, 1, 2, 0])
  found = calibration.metrics(np.eye(3)[[0, 1, 2, 2]], labels)
  assert found['expected_calibration_error'] == found['adaptive_calibration_error'] == 0.25
  # One of three classes lacks a prediction, and another has one too many.
  assert found['classwise_calibration_error'] == pytest.approx((0.25 + 0.0 + 0.25) / 3)


def test_bins_are_open_below_and_closed_above():
  confidences = np.array([0.0, 0.2, 0.2001, 0.4, 1.0])
  found = calibration.reliability(confidences, np.ones(5, bool), bins=5)
  np.testing.assert_array_equal(found.counts, [2, 2, 0, 0, 1])
  np.testing.assert_allclose(found.confidences, [0.1, 0.30005, 0, 0, 1])
  np.testing.assert_array_equal(found.accuracies, [1, 1, 0, 0, 1])


def test_adaptive_bins_are_equally_full_and_blind_to_the_order():
  confidences, right = calibration.predictions(*drawn(103))
  confidences = confidences.round(1)  # ties
  found = calibration.adaptive_reliability(confidences, right, bins=10)
  assert set(found.counts) <= {10, 11}
  order = np.random.default_rng(1).permutation(103)
  permuted = calibration.adaptive_reliability(confidences[order], right[order], bins=10)
  np.testing.assert_allclose(permuted.accuracies, found.accuracies)


@pytest.mark.parametrize(
  'confidences, right, options, message',
  [
    (np.ones(3), np.ones(2), {}, r'\(3,\) and outcomes \(2,\)'),
    (np.ones(0), np.ones(0), {}, 'N > 0'),
    (np.array([3.0]), np.ones(1), {}, 'softmax'),
    (np.array([np.nan]), np.ones(1), {}, 'softmax'),
    (np.ones(1), np.ones(1), {'bins': 0}, 'bins = 0'),
  ],
)
def test_bad_input_is_refused(confidences, right, options, message):
  with pytest.raises(ValueError, match=message):
    calibration.reliability(confidences, right, **options)
