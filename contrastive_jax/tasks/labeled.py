"""Labeled images in memory, for tasks that draw batches of their own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contrastive_jax import data


class LabeledImages(NamedTuple):
  """Images with the classes of their labels.

  Attributes:
    images: [N, S, S, 3] pixels from 0 to 255, uint8.
    labels: [N] indices of `classes`, int32.
    classes: the values of the field, in order.
  """

  images: np.ndarray
  labels: np.ndarray
  classes: tuple[str, ...]

  def of(self, classes: Sequence[str]) -> 'LabeledImages':
    """The images of some classes, numbered anew in the given order."""
    numbers = {name: number for number, name in enumerate(classes)}
    new = np.array([numbers.get(name, -1) for name in self.classes], np.int32)[self.labels]
    kept = new >= 0
    return LabeledImages(self.images[kept], new[kept], tuple(classes))


def read_labeled(
  name: str,
  split: str,
  field: str,
  *,
  size: int,
  folder: str | None = None,
  classes: Sequence[str] = (),
) -> LabeledImages:
  """Reads all images of a split with their labels.

  Args:
    name: of the source, see `data.open_source`.
    split: of the source.
    field: of the labels, such as 'subgroup'.
    size: S, the side of the images.
    folder: of the source's files.
    classes: those of the training split, which number the labels of another one; () for the
      split's own.

  Raises:
    ValueError: if a label is none of `classes`, or as `data.open_source`.
  """
  source = data.open_source(name, split, folder)
  values = [str(value) for value in source.values(field)]
  classes = tuple(classes) or tuple(sorted(set(values)))
  if unknown := sorted(set(values) - set(classes)):
    raise ValueError(
      f'split {split!r} of {name!r} has the {field} {unknown[0]!r}, which the training split '
      'lacks; select others, as in SPLIT[FIELD=VALUE]'
    )
  labels = np.searchsorted(np.array(sorted(classes)), values)
  order = np.argsort(np.array(classes))
  return LabeledImages(
    data.evaluation_images(source, size), order[labels].astype(np.int32), classes
  )
