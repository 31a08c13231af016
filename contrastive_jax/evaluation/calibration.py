"""Calibration: how far the confidence of a classifier is from its accuracy."""

from typing import NamedTuple

import numpy as np


class Reliability(NamedTuple):
  """Predictions in K bins of confidence: the bars of a reliability diagram.

  Attributes:
    counts: [K] predictions per bin.
    confidences: [K] their mean confidence; 0 in an empty bin.
    accuracies: [K] the share of them that is right; 0 in an empty bin.
  """

  counts: np.ndarray
  confidences: np.ndarray
  accuracies: np.ndarray

  @property
  def error(self) -> float:
    """The calibration error: the mean gap between confidence and accuracy, over predictions."""
    gaps = np.abs(self.confidences - self.accuracies)
    return float(self.counts @ gaps / self.counts.sum())


def reliability(confidences: np.ndarray, right: np.ndarray, bins: int = 15) -> Reliability:
  """Bins of equal width, (k / K, (k + 1) / K], whose `error` is the ECE [1].

  Args:
    confidences: [N] from 0 to 1; those of the predicted classes, for the ECE.
    right: [N] booleans, whether a prediction is right.
    bins: K.

  Raises:
    ValueError: if there is no prediction, the numbers differ, or a confidence is out of range.

  References:
    [1] Guo et al., On Calibration of Modern Neural Networks, 2017,
      https://arxiv.org/abs/1706.04599.

  >>> reliability(np.array([0.9, 0.9, 0.3]), np.array([True, False, False]), bins=2).error
  0.3666666666666667
  """
  confidences, right = _checked(confidences, right, bins)
  inner = np.arange(1, bins) / bins
  return _binned(np.searchsorted(inner, confidences), confidences, right, bins)


def adaptive_reliability(confidences: np.ndarray, right: np.ndarray, bins: int = 15) -> Reliability:
  """Bins of equal numbers of predictions, whose `error` is the adaptive ECE [1].

  It takes the arguments of `reliability`; at most one bin per prediction.

  References:
    [1] Nguyen and O'Connor, Posterior Calibration and Exploratory Analysis for Natural Language
      Processing Models, 2015, https://arxiv.org/abs/1508.05154.
  """
  confidences, right = _checked(confidences, right, bins)
  ranks = np.empty(len(right), int)
  # Outcomes break ties, so that the order of the predictions has no effect.
  ranks[np.lexsort([right, confidences])] = np.arange(len(right))
  bins = min(bins, len(right))
  return _binned(ranks * bins // len(right), confidences, right, bins)


def classwise_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
  """The static calibration error [1]: the mean over classes of the ECE of each one's probability.

  Args:
    probabilities: [N, C]
    labels: [N] integers below C.
    bins: K, of equal width.

  References:
    [1] Nixon et al., Measuring Calibration in Deep Learning, 2019,
      https://arxiv.org/abs/1904.01685.
  """
  each = enumerate(np.asarray(probabilities).T)
  return float(np.mean([reliability(own, labels == c, bins).error for c, own in each]))


def metrics(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, float]:
  """Accuracy, calibration errors and likelihood of a classifier.

  `overconfidence` is the mean confidence less the accuracy; its size is at most the ECE.

  Args:
    probabilities: [N, C]
    labels: [N] integers below C.
    bins: K.

  Raises:
    ValueError: as `reliability`.
  """
  confidences, right = predictions(probabilities, labels)
  likelihood = np.take_along_axis(np.asarray(probabilities), np.asarray(labels)[:, None], axis=1)
  return {
    'accuracy': float(right.mean()),
    'expected_calibration_error': reliability(confidences, right, bins).error,
    'adaptive_calibration_error': adaptive_reliability(confidences, right, bins).error,
    'classwise_calibration_error': classwise_error(probabilities, labels, bins),
    'overconfidence': float(confidences.mean() - right.mean()),
    'negative_log_likelihood': float(-np.log(np.maximum(likelihood, 1e-12)).mean()),
  }


def predictions(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The confidence [N] of each predicted class, and whether it is right, of [N, C] and [N]."""
  return np.max(probabilities, axis=1), np.argmax(probabilities, axis=1) == labels


def _checked(confidences, right, bins):
  confidences, right = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
  if confidences.shape != right.shape or confidences.ndim != 1 or not confidences.size:
    raise ValueError(
      f'confidences {confidences.shape} and outcomes {right.shape} do not match; give [N] of each, '
      'with N > 0'
    )
  if bins < 1:
    raise ValueError(f'bins = {bins}; use a positive number, such as 15')
  if not (confidences.min() >= 0 and confidences.max() <= 1 + 1e-5):
    raise ValueError(
      f'confidences from {confidences.min()} to {confidences.max()} are no probabilities; give the '
      'softmax of the logits'
    )
  return confidences, right


def _binned(index, confidences, right, bins) -> Reliability:
  counts = np.bincount(index, minlength=bins)
  sums = (np.bincount(index, each, minlength=bins) for each in (confidences, right))
  return Reliability(counts, *(each / np.maximum(counts, 1) for each in sums))
