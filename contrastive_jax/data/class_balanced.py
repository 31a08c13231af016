"""Batches of equally many examples of each of some classes."""

from collections.abc import Sequence

import numpy as np


class ClassBalanced:
  """Rows of class-balanced batches, by the number of the step.

  >>> sample = ClassBalanced([0, 0, 1, 1, 2, 2], classes=2, examples=2)
  >>> rows = sample(step=7)
  >>> bool(np.all(rows == sample(step=7))), rows.shape
  (True, (4,))
  """

  def __init__(self, labels: Sequence[int] | np.ndarray, classes: int, examples: int, seed=0):
    """Sorts the rows by class.

    Args:
      labels: the class of each row.
      classes: m, classes per batch, drawn without replacement.
      examples: k, examples of each. A class repeats one only if it has fewer than k.
      seed: of the draws.

    Raises:
      ValueError: if m or k is below 2, or the labels have fewer than m classes.
    """
    found, numbers = np.unique(np.asarray(labels), return_inverse=True)
    self._rows = [np.flatnonzero(numbers == number) for number in range(len(found))]
    if not 2 <= classes <= len(found):
      raise ValueError(f'classes = {classes} per batch of {len(found)}; use 2 to {len(found)}')
    if examples < 2:
      raise ValueError(f'examples = {examples} per class; use 2 or more')
    self._classes, self._examples, self._seed = classes, examples, seed

  def __call__(self, step: int) -> np.ndarray:
    """The rows [m k] of a step; the k of each class are consecutive."""
    rng = np.random.default_rng((self._seed, step))
    drawn = []
    for number in rng.choice(len(self._rows), self._classes, replace=False):
      rows = self._rows[number]
      # Each is drawn equally often, to within one.
      repeats = -(-self._examples // len(rows))
      drawn.append(np.concatenate([rng.permutation(rows) for _ in range(repeats)]))
    return np.concatenate([rows[: self._examples] for rows in drawn])
