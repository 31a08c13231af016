"""The order of a stream of classes, which come in tasks and are seen once."""

from typing import NamedTuple

import numpy as np


class ClassStream(NamedTuple):
  """The batches of a stream of T tasks.

  Attributes:
    numbers: [steps, B] rows of the data, each at most once.
    tasks: [steps] the task of a batch, from 0, int32.
    positions: [steps] number of the batch within its task, from 0, int32.
    classes: of each task, their numbers.
  """

  numbers: np.ndarray
  tasks: np.ndarray
  positions: np.ndarray
  classes: tuple[np.ndarray, ...]

  @property
  def ends(self) -> np.ndarray:
    """Steps that are done when each task ends, [T]."""
    return np.cumsum(np.bincount(self.tasks))


def order_stream(labels: np.ndarray, *, tasks: int, batch_size: int, seed: int) -> ClassStream:
  """Deals the classes out to tasks at random, and shuffles the examples of each.

  The last examples of a task, fewer than a batch, are dropped.

  Args:
    labels: [N] classes of the examples, from 0.
    tasks: T, of equally many classes, or one more in the first ones.
    batch_size: B.
    seed: of the order.

  Raises:
    ValueError: if a task would have no class or no full batch.

  >>> stream = order_stream(np.arange(12) % 3, tasks=3, batch_size=2, seed=0)
  >>> stream.tasks
  array([0, 0, 1, 1, 2, 2], dtype=int32)
  """
  present = np.unique(labels)
  if not 1 <= tasks <= len(present):
    raise ValueError(f'config.tasks = {tasks} of {len(present)} classes; use 1 to {len(present)}')
  rng = np.random.default_rng(seed)
  classes = tuple(np.array_split(rng.permutation(present), tasks))
  numbers = []
  for number, own in enumerate(classes):
    rows = rng.permutation(np.flatnonzero(np.isin(labels, own)))
    if len(rows) < batch_size:
      raise ValueError(
        f'config.batch_size = {batch_size} exceeds the {len(rows)} examples of task {number} of '
        f'config.tasks = {tasks}; use fewer tasks, or batches of at most {len(rows)}'
      )
    numbers.append(rows[: len(rows) // batch_size * batch_size].reshape(-1, batch_size))
  steps = [len(rows) for rows in numbers]
  return ClassStream(
    np.concatenate(numbers),
    np.repeat(np.arange(tasks, dtype=np.int32), steps),
    np.concatenate([np.arange(each, dtype=np.int32) for each in steps]),
    classes,
  )
