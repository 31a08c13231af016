"""The images of a split, decoded for evaluation where they are indexed: square or as patches."""

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import numpy as np
from PIL import Image

from contrastive_jax.data import images
from contrastive_jax.data.cores import available_cores
from contrastive_jax.data.patches import Patches, patchify
from contrastive_jax.data.readers import encoded_image
from contrastive_jax.data.sources.source import location_of

# Bytes up to which decoded and resized images are cached.
CACHED_BYTES = 2**28
_PART = 4  # images that a thread decodes in turn


class DecodedImages:
  """The images of a source, resized for evaluation; indexed like an array, uint8 [N, S, S, 3].

  Indexing decodes the given rows in threads, as many as there are cores, and returns an array. If
  all N images fit in 256 MiB, each is decoded once; otherwise whenever it is indexed.

  Attributes:
    shape: (N, S, S, 3).
    dtype: uint8.
    ndim: 4.
  """

  dtype, ndim = np.dtype(np.uint8), 4

  def __init__(
    self, source, size: int, resize: Callable[[Image.Image, int], np.ndarray] = images.resize
  ):
    """Decodes nothing yet.

    Args:
      source: examples by number, from `open_source`.
      size: S, the side of the images.
      resize: (decoded image, S) -> uint8 [S, S, 3].
    """
    self._source, self._resize = source, lambda image: resize(image, size)
    self.shape = (len(source), size, size, 3)
    small = np.prod(self.shape, dtype=np.int64) <= CACHED_BYTES
    self._cache = np.empty(self.shape, np.uint8) if small else None
    self._cached = np.zeros(len(source), bool)

  def __len__(self) -> int:
    return len(self._source)

  def __iter__(self) -> Iterator[np.ndarray]:
    return (self[row] for row in range(len(self)))

  def __getitem__(self, rows: Any) -> np.ndarray:
    """Returns images by an integer, a slice or an array of integers, like NumPy.

    Raises:
      ValueError: if an image cannot be used.
    """
    numbers = np.arange(len(self))[rows]
    flat = np.atleast_1d(numbers).ravel()
    self._decode_missing(flat)
    found = self._read(flat) if self._cache is None else self._cache[flat]
    return found.reshape(*np.shape(numbers), *self.shape[1:])

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    if copy is False:
      raise ValueError('the images are decoded, which takes a copy')
    return self[:].astype(dtype or self.dtype, copy=False)

  def _decode_missing(self, numbers: np.ndarray) -> None:
    if self._cache is not None and not self._cached[numbers].all():
      missing = np.unique(numbers[~self._cached[numbers]])
      self._cache[missing] = self._read(missing)
      self._cached[missing] = True

  def _read(self, numbers: np.ndarray) -> np.ndarray:
    """Decodes images by number."""
    found = np.empty([len(numbers), *self.shape[1:]], np.uint8)

    def fill(row: int) -> None:
      found[row] = _decode(self._source, int(numbers[row]), self._resize)

    _for_each(fill, len(numbers))
    return found


class DecodedPatches:
  """The images of a source as patches; indexed by an array of integers or a slice.

  Indexing decodes the given rows in threads and returns `Patches`. If all N images fit in 256 MiB,
  each is decoded once; otherwise whenever it is indexed.
  """

  def __init__(
    self,
    source,
    length: int,
    patch: int,
    cut: Callable[..., Patches] = patchify,
  ):
    """Decodes nothing yet.

    Args:
      source: examples by number, from `open_source`.
      length: L, patches per image.
      patch: side of a patch, in pixels.
      cut: (decoded image, L, patch) -> patches of one image.
    """
    self._source, self._cut = source, lambda image: cut(image, length, patch)
    self._shape = (length, patch, patch, 3)
    small = len(source) * np.prod(self._shape, dtype=np.int64) <= CACHED_BYTES
    self._cache = self._empty(len(source)) if small else None
    self._cached = np.zeros(len(source), bool)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, rows: Any) -> Patches:
    """Returns the patches of some rows.

    Raises:
      ValueError: if an image cannot be used.
    """
    numbers = np.atleast_1d(np.arange(len(self))[rows])
    if self._cache is None:
      return self._read(numbers)
    if not self._cached[numbers].all():
      missing = np.unique(numbers[~self._cached[numbers]])
      for array, new in zip(self._cache, self._read(missing), strict=True):
        array[missing] = new
      self._cached[missing] = True
    return Patches(*(array[numbers] for array in self._cache))

  def _empty(self, count: int) -> Patches:
    return Patches(np.empty([count, *self._shape], np.uint8), np.empty([count, 2], np.int32))

  def _read(self, numbers: np.ndarray) -> Patches:
    found = self._empty(len(numbers))

    def fill(row: int) -> None:
      found.pixels[row], found.grid[row] = _decode(self._source, int(numbers[row]), self._cut)

    _for_each(fill, len(numbers))
    return found


def _for_each(fill: Callable[[int], None], count: int) -> None:
  """Calls a function for the numbers below `count`, in threads, as many as there are cores."""
  if (threads := min(available_cores(), count)) < 2:
    for row in range(count):
      fill(row)
    return

  def fill_part(first: int) -> None:
    for row in range(first, min(first + _PART, count)):
      fill(row)

  with futures.ThreadPoolExecutor(threads) as pool:
    for _ in pool.map(fill_part, range(0, count, _PART)):
      pass  # raises the error of the first row that has one


def _decode(source, number: int, resize: Callable[[Image.Image], Any]) -> Any:
  """Decodes and resizes the image of an example."""
  example = source[number]
  if 'error' in example:
    raise ValueError(f'example {example["id"]} cannot be evaluated: {example["error"]}')
  try:
    return resize(images.decode(encoded_image(example)))
  except ValueError as error:
    raise ValueError(
      f'example {example["id"]} cannot be evaluated: {location_of(source, number)}: {error}'
    ) from error
