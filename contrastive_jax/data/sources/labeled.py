"""Small sets of labeled images that a package installs: Fashion-MNIST and scikit-learn's digits."""

import functools
import gzip
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from contrastive_jax.data.sources.photographs import Photographs, open_photographs
from contrastive_jax.data.sources.row_ids import RowRange

# Where Debian's dataset-fashion-mnist puts its files.
FASHION_MNIST = '/usr/share/datasets/fashion-mnist'
_CLOTHES = ('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat')
_CLOTHES += ('Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot')


class LabeledImages(Sequence):
  """Grayscale images by number, each with its class.

  Attributes:
    bytes: size of the pixels.
    row_ranges: the images, as rows of a file of the name of the set.
  """

  def __init__(self, name: str, pixels: np.ndarray, labels: np.ndarray, classes: Sequence[str]):
    """Holds N images.

    Args:
      name: of the set and the split.
      pixels: [N, H, W] uint8.
      labels: [N] indices in `classes`.
      classes: names of the classes.
    """
    self._name, self._pixels, self._labels, self._classes = name, pixels, labels, classes
    self.bytes = pixels.nbytes
    self.row_ranges = [RowRange(name, 0, len(pixels))]

  def __len__(self) -> int:
    return len(self._pixels)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the `image`, encoded as PNG, and the class as `label`."""
    Image.fromarray(self._pixels[number]).save(encoded := io.BytesIO(), 'png')
    return self.fields(number) | {'image': encoded.getvalue()}

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the class as `label`."""
    return {'label': self._classes[self._labels[number]]}

  def where(self, number: int) -> str:
    """Returns the name of the set and the number of the image there."""
    return f'{self._name}: image {number}'


def open_digits(split: str) -> LabeledImages:
  """Opens the 1,797 handwritten digits of scikit-learn, 8 pixels wide, with one split, 'train'.

  Raises:
    ValueError: if the split is another, or scikit-learn is not installed.
  """
  if split != 'train':
    raise ValueError(f"it holds one split, 'train', not {split!r}; slice it, as in 'train[80%:]'")
  try:
    from sklearn.datasets import load_digits
  except ImportError as error:
    raise ValueError(
      f'it needs scikit-learn ({error}); install it: pip install scikit-learn'
    ) from error
  found = load_digits()
  pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
  return LabeledImages('digits', pixels, found.target, '0123456789')


def open_fashion_mnist(split: str) -> LabeledImages:
  """Opens the 60,000 or 10,000 articles of clothing of Fashion-MNIST, 28 pixels wide.

  Args:
    split: 'train' or 'test'.

  Raises:
    ValueError: if the split is another, or Debian's package is not installed.
  """
  prefixes = {'train': 'train', 'test': 't10k'}
  if split not in prefixes:
    raise ValueError(f'it has no split {split!r}; use one of {sorted(prefixes)}')
  paths = [
    os.path.join(FASHION_MNIST, f'{prefixes[split]}-{kind}-ubyte.gz')
    for kind in ('images-idx3', 'labels-idx1')
  ]
  if missing := [path for path in paths if not os.path.exists(path)]:
    raise ValueError(
      f'{missing[0]} is missing; install it on Debian or Ubuntu: apt-get install '
      "dataset-fashion-mnist; or use 'tfds:fashion_mnist', once TFDS has prepared it"
    )
  return LabeledImages(f'fashion_mnist/{split}', *map(_read_idx, paths), _CLOTHES)


def _read_idx(path: str) -> np.ndarray:
  """Reads an array of bytes in MNIST's format: a magic number, sizes as big-endian integers."""
  with gzip.open(path) as file:
    content = file.read()
  dimensions = content[3]
  sizes = np.frombuffer(content, '>u4', dimensions, 4)
  return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)


# Readers by the name of the set: split -> records.
DATASETS: dict[str, Callable[[str], LabeledImages | Photographs]] = {
  'digits': functools.cache(open_digits),
  'fashion_mnist': functools.cache(open_fashion_mnist),
  'photographs': open_photographs,
}
