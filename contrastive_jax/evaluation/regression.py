"""The regression probe: ridge regression of numbers on the features of a frozen encoder."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from contrastive_jax.evaluation.probes import search_l2


class RidgeProbe(NamedTuple):
  """A linear regression.

  Attributes:
    weights: [D]
    bias: scalar.
    l2: strength of the L2 penalty of its fit.
    median: of the numbers that it is fitted to.
  """

  weights: np.ndarray
  bias: float
  l2: float
  median: float

  def error(self, features: np.ndarray, numbers: Sequence[float]) -> float:
    """Returns the mean absolute error on features [N, D]."""
    return float(np.mean(np.abs(features @ self.weights + self.bias - np.asarray(numbers))))


def ridge_probe(features: np.ndarray, numbers: Sequence[float], *, seed: int = 0) -> RidgeProbe:
  """Fits a ridge regression, with an intercept that is not penalized.

      minimize  Σᵢ (xᵢ · w + b − yᵢ)² + l2 ‖w‖²

  `search_l2` finds the strength with the lowest mean absolute error on a random fifth of the
  examples; the probe is then fitted to all.

  Args:
    features: [N, D] x.
    numbers: [N] y.
    seed: of the split.

  Raises:
    ValueError: if features and numbers differ in number, or are fewer than two.
  """
  x, y = np.asarray(features, np.float64), np.asarray(numbers, np.float64)
  if len(x) != len(y) or len(x) < 2:
    raise ValueError(f'{len(x)} features and {len(y)} numbers; give as many, at least two')
  order = np.random.default_rng(seed).permutation(len(y))
  held, rest = np.split(order, [max(1, len(y) // 5)])
  of_rest = _solver(x[rest], y[rest])
  l2 = search_l2(lambda l2: -of_rest(l2).error(x[held], y[held]))
  return _solver(x, y)(l2)


def _solver(x, y):
  """l2 -> the probe, by one eigendecomposition."""
  mean, center = np.mean(x, 0), np.mean(y)
  values, vectors = np.linalg.eigh((x - mean).T @ (x - mean))
  products = vectors.T @ ((x - mean).T @ (y - center))

  def solve(l2: float) -> RidgeProbe:
    weights = vectors @ (products / (np.maximum(values, 0) + l2))
    return RidgeProbe(weights, center - mean @ weights, l2, float(np.median(y)))

  return solve


def regress(
  features: Mapping[str, np.ndarray],
  numbers: Mapping[str, Mapping[str, Sequence[float]]],
  fields: Sequence[str],
) -> dict[str, float]:
  """Fits probes to the features of the split '' and tests them on the others.

  Args:
    features: [N, D] by split.
    numbers: N numbers by field, by split.
    fields: of the numbers.

  Returns:
    By split and field, the mean absolute error `FIELD_mae` and two baselines: `FIELD_median_mae` of
    the median of the numbers, and `FIELD_by_OTHER_mae` of a regression on another field.
  """
  metrics = {}
  tests = [name for name in features if name]
  for field in fields:
    own = numbers[''][field]
    probe = ridge_probe(features[''], own)
    for name in tests:
      right = np.asarray(numbers[name][field])
      metrics[f'{name}/{field}_mae'] = probe.error(features[name], right)
      metrics[f'{name}/{field}_median_mae'] = float(np.mean(np.abs(right - probe.median)))
    for other in fields:
      if other != field:
        alone = ridge_probe(_column(numbers[''][other]), own)
        for name in tests:
          error = alone.error(_column(numbers[name][other]), numbers[name][field])
          metrics[f'{name}/{field}_by_{other}_mae'] = error
  return metrics


def _column(numbers: Sequence[float]) -> np.ndarray:
  return np.asarray(numbers, np.float64)[:, None]


def read_numbers(
  where: str, fields: Mapping[str, Sequence], asked: Sequence[str]
) -> dict[str, list[float]]:
  """Returns the numbers of a split by field.

  Args:
    where: the split, for errors.
    fields: its values by field.
    asked: the fields of numbers.

  Raises:
    ValueError: if the split lacks a field, or it holds no finite numbers.
  """
  found = {}
  for field in asked:
    if field not in fields:
      raise ValueError(
        f'config.evaluation.numbers names {field!r}, which {where} has not; name other fields, or '
        'use config.evaluation.numbers = ()'
      )
    try:
      found[field] = [float(value) for value in fields[field]]
    except (TypeError, ValueError) as error:
      raise ValueError(
        f'config.evaluation.numbers names {field!r}, which is no number in {where}: {error}'
      ) from error
    if not np.all(np.isfinite(found[field])):
      raise ValueError(
        f'config.evaluation.numbers names {field!r}, of which {where} has values that are not '
        'finite; select the others'
      )
  return found
