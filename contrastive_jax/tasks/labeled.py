"""Labeled images by number, for tasks that draw batches of their own."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax import data


class LabeledImages(NamedTuple):
  """Images with the classes of their labels.

  Attributes:
    images: [N, S, S, 3] pixels from 0 to 255, uint8: an array, or what decodes the rows that it is
      indexed by.
    labels: [N] indices of `classes`, int32.
    classes: the values of the field, in order.
  """

  images: Any
  labels: np.ndarray
  classes: tuple[str, ...]

  def of(self, classes: Sequence[str]) -> 'LabeledImages':
    """The images of some classes, numbered anew in the given order."""
    numbers = {name: number for number, name in enumerate(classes)}
    new = np.array([numbers.get(name, -1) for name in self.classes], np.int32)[self.labels]
    kept = new >= 0
    return LabeledImages(_Rows(self.images, np.flatnonzero(kept)), new[kept], tuple(classes))

  def by_class(self) -> list[Any]:
    """The images of each class, in order of the classes."""
    rows = (np.flatnonzero(self.labels == label) for label in range(len(self.classes)))
    return [_Rows(self.images, own) for own in rows]


class _Rows:
  """Some rows of images, decoded once they are indexed."""

  def __init__(self, images: Any, rows: np.ndarray):
    self._images, self._rows = images, rows
    self.shape, self.dtype = (len(rows), *images.shape[1:]), images.dtype

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, rows: Any) -> np.ndarray:
    return self._images[self._rows[rows]]

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return self[:].astype(dtype or self.dtype, copy=False)


def read_labeled(
  name: str,
  split: str,
  field: str,
  *,
  size: int,
  folder: str | None = None,
  classes: Sequence[str] = (),
) -> LabeledImages:
  """Reads the labels of all images of a split; the images are decoded when they are needed.

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
  images = data.DecodedImages(source, size)
  return LabeledImages(images, order[labels].astype(np.int32), classes)
