"""Shapes of batches: square images, or patches of several sequence lengths."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Tells the draws of shapes from others of the same seed.
_TAG = 0x5A9E


class BatchShape(NamedTuple):
  """The shape of a batch.

  Attributes:
    batch_size: B.
    length: L, patches per image; 0 for square images.
    patch: side of a patch, in pixels; 0 for square images.
  """

  batch_size: int
  length: int = 0
  patch: int = 0


def shapes_of_budget(
  batch_size: int, lengths: Sequence[int], patches: Sequence[int], multiple: int = 1
) -> list[BatchShape]:
  """Returns shapes with about the same number of patches per batch.

  >>> [(shape.length, shape.batch_size) for shape in shapes_of_budget(64, (64, 144), (16,), 8)]
  [(64, 144), (144, 64)]

  Args:
    batch_size: images per batch of the longest sequences: the budget is this number times their
      length.
    lengths: patches per image. A length that is given twice is drawn twice as often.
    patches: sides of patches, in pixels; each occurs with each length.
    multiple: to which the number of images per batch of shorter sequences is rounded down.
  """
  longest = max(lengths)

  def images(length):
    if length == longest:
      return batch_size
    return batch_size * longest // length // multiple * multiple

  return [BatchShape(images(length), length, patch) for length in lengths for patch in patches]


class BatchShapes:
  """The shape of each batch, and its position in the stream of examples.

  Both are functions of the seed and of the batch's number. A round of K batches has each of K
  shapes once, in random order. A shape takes the same part of the examples of each round, so that
  the order of shapes leaves the order of examples as it is.

  Attributes:
    shapes: the K shapes.
    per_round: number of examples per round.
  """

  def __init__(self, shapes: Sequence[BatchShape], seed: int):
    """`seed` determines the order of the shapes in each round."""
    self.shapes = tuple(shapes)
    sizes = [shape.batch_size for shape in shapes]
    self.per_round = sum(sizes)
    self._firsts = np.cumsum([0, *sizes[:-1]]).tolist()
    self._seed = seed

  @property
  def longest(self) -> BatchShape:
    """The first shape with the most patches per image."""
    return max(self.shapes, key=lambda shape: shape.length)

  def at(self, batch: int) -> BatchShape:
    """Returns the shape of a batch, by its number from 0."""
    turn, index = divmod(batch, len(self.shapes))
    return self.shapes[self._order(turn)[index]]

  def first(self, batch: int) -> int:
    """Returns the position of a batch's first example in the stream; the others follow it."""
    turn, index = divmod(batch, len(self.shapes))
    return turn * self.per_round + self._firsts[self._order(turn)[index]]

  def images(self, batches: int) -> int:
    """Returns the number of examples in the first batches."""
    turn, rest = divmod(batches, len(self.shapes))
    return turn * self.per_round + sum(
      self.shapes[index].batch_size for index in self._order(turn)[:rest]
    )

  def _order(self, turn: int) -> list[int]:
    """Returns the indices of the shapes in the order of a round."""
    if len(self.shapes) == 1:
      return [0]
    return np.random.default_rng([self._seed, _TAG, turn]).permutation(len(self.shapes)).tolist()
