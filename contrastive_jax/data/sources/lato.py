"""Letters of the font Lato in nine weights, whose weight is a number to regress."""

import functools
import io
import os
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from contrastive_jax.data.sources.row_ids import RowRange
from contrastive_jax.data.sources.source import BadExampleError

# Where Debian's fonts-lato puts its files.
INSTALLED = '/usr/share/fonts/truetype/lato'
# Of the font files, by a thousandth of their CSS weight.
WEIGHTS = {
  0.1: 'Hairline',
  0.2: 'Thin',
  0.3: 'Light',
  0.4: 'Regular',
  0.5: 'Medium',
  0.6: 'Semibold',
  0.7: 'Bold',
  0.8: 'Heavy',
  0.9: 'Black',
}
# Every fifth letter is held out.
_LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789&?!%'
_SIDE, _POINTS = 64, 44


class Lato(Sequence):
  """Letters, black on white, upright and italic.

  Attributes:
    bytes: size of the pixels.
    row_ranges: the letters, as rows of a file of the split's name.
  """

  def __init__(self, folder: str, split: str):
    """Lists the letters of a split, 'train' or 'heldout'."""
    self._folder = folder
    letters = [c for i, c in enumerate(_LETTERS) if (i % 5 == 4) == (split == 'heldout')]
    self._rows = [(c, weight, slant) for c in letters for weight in WEIGHTS for slant in (0, 1)]
    self.bytes = len(self._rows) * _SIDE**2
    self.row_ranges = [RowRange(f'{folder}: {split}', 0, len(self._rows))]

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the fields of a letter, with its `image`, encoded as PNG.

    Raises:
      BadExampleError: if the font cannot be read.
    """
    letter = self._rows[number][0]
    image = Image.new('RGB', (_SIDE, _SIDE), 'white')
    try:
      font = _font(self.where(number))
    except OSError as error:
      raise BadExampleError(f'{self.where(number)} cannot be read: {error}') from error
    middle = _SIDE / 2, _SIDE / 2
    ImageDraw.Draw(image).text(middle, letter, 'black', font, anchor='mm')
    image.save(encoded := io.BytesIO(), 'png')
    return self.fields(number) | {'image': encoded.getvalue()}

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the `letter`, its `weight` from 0.1 to 0.9, and its `style`."""
    letter, weight, slant = self._rows[number]
    return {'letter': letter, 'weight': weight, 'style': 'italic' if slant else 'upright'}

  def where(self, number: int) -> str:
    """Returns the path of the font."""
    _, weight, slant = self._rows[number]
    return _path(self._folder, weight, slant)


def open_folder(folder: str, split: str) -> Lato:
  """Opens a split of the letters of the fonts in a folder; '' for that of `INSTALLED`.

  Raises:
    ValueError: if a font is missing, or there is no such split.
  """
  folder = folder or INSTALLED
  if split not in ('train', 'heldout'):
    raise ValueError(f"there is no split {split!r}; use 'train' or 'heldout'")
  paths = [_path(folder, weight, slant) for weight in WEIGHTS for slant in (0, 1)]
  if missing := [path for path in paths if not os.path.exists(path)]:
    raise ValueError(
      f'{missing[0]} is missing, one of {len(missing)} fonts; install them on Debian or Ubuntu: '
      'apt-get install fonts-lato'
    )
  return Lato(folder, split)


def _path(folder: str, weight: float, slant: int) -> str:
  name = WEIGHTS[weight] + 'Italic' * slant
  return os.path.join(folder, f'Lato-{name.replace("RegularItalic", "Italic")}.ttf')


@functools.lru_cache(maxsize=18)
def _font(path: str) -> ImageFont.FreeTypeFont:
  return ImageFont.truetype(path, _POINTS)
