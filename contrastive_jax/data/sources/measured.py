"""Numbers that are measured from the image of each example, as labels of regression."""

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrastive_jax.data.images import decode
from contrastive_jax.data.sources.row_ids import RowRange, row_ranges
from contrastive_jax.data.sources.source import (
  BadExampleError,
  fields_of,
  location_of,
  reading_ahead,
)

_INK = 224  # pixels with a channel below it are not white
_MAGENTA = 60  # degrees before red, where the hues 0 and 1 meet


class Measured(Sequence):
  """Examples with the numbers of `measure` as further fields.

  Attributes:
    row_ranges: the examples, as rows of their files.
  """

  def __init__(self, records: Sequence[Mapping[str, Any]]):
    """Measures records with encoded images, each when it is first read."""
    self._records, self._numbers = records, {}
    self.row_ranges: list[RowRange] = row_ranges(records)

  def __getstate__(self) -> dict[str, Any]:
    # A copy in another process measures on its own.
    return vars(self) | {'_numbers': {}}

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns an example with its numbers.

    Raises:
      BadExampleError: if its image is missing or does not decode.
    """
    example = self._records[number]
    if number not in self._numbers:
      try:
        self._numbers[number] = measure(np.asarray(decode(example['image'])))
      except (KeyError, TypeError, ValueError) as error:
        raise BadExampleError(f'the image cannot be measured: {error}') from error
    return {**example, **self._numbers[number]}

  def fields(self, number: int) -> dict[str, Any]:
    """Returns an example without its image, which is read once."""
    if number not in self._numbers:
      return {name: value for name, value in self[number].items() if name != 'image'}
    return {**fields_of(self._records, number), **self._numbers[number]}

  def reading_ahead(self, stretch: int, stretches: int) -> 'Measured':
    """Returns a copy whose records read stretches of files in blocks."""
    other = copy.copy(self)
    other._records = reading_ahead(self._records, stretch, stretches)
    return other

  def where(self, number: int) -> str:
    """Returns the file of an example and its name there."""
    return location_of(self._records, number)


@functools.lru_cache(maxsize=8)
def of(records: Sequence[Mapping[str, Any]]) -> Measured:
  """Returns `Measured(records)`, the same one for the same object: each image is measured once."""
  return Measured(records)


def measure(pixels: np.ndarray) -> dict[str, float]:
  """Measures an image on white.

  Args:
    pixels: [H, W, 3] uint8.

  Returns:
    Numbers from 0 to 1, rounded to hundredths:

    - `ink`: share of the pixels that are not white;
    - `aspect`: width / (width + height) of their bounding box, 0.5 for a square or no ink;
    - `chroma`: of the mean pixel, relative to that of a pure color;
    - `hue`: of the mean pixel, as a share of the circle from magenta by red, yellow, green, cyan
      and blue; noise where `chroma` is about 0.

  >>> page = np.full((4, 4, 3), 255, np.uint8)
  >>> page[:1] = 255, 0, 0
  >>> measure(page)
  {'ink': 0.25, 'aspect': 0.8, 'chroma': 0.25, 'hue': 0.17}
  """
  ink = np.min(pixels, axis=2) < _INK
  width, height = (_extent(np.any(ink, axis)) for axis in (0, 1))
  red, green, blue = np.mean(pixels, axis=(0, 1)) / 255
  # Opponent colors, 0 for gray and white
  warm, green_blue = red - (green + blue) / 2, 3**0.5 / 2 * (green - blue)
  degrees = (np.degrees(np.arctan2(green_blue, warm)) + _MAGENTA) % 360
  numbers = {
    'ink': np.mean(ink),
    'aspect': width / (width + height),
    'chroma': np.hypot(warm, green_blue),
    'hue': degrees / 360,
  }
  return {name: round(float(number), 2) for name, number in numbers.items()}


def _extent(line: np.ndarray) -> int:
  """The length between the first and the last true entry; 1 without any."""
  found = np.flatnonzero(line)
  return found[-1] - found[0] + 1 if len(found) else 1
