"""Letters of Noto's scripts, each drawn several times: a class per letter, as in Omniglot.

A font has one drawing of a letter; the others differ from it by a small rotation and shear, by
scale, place and the thickness of the stroke. They are functions of the letter and their number.
"""

import collections
import functools
import io
import os
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from contrastive_jax.data.sources.row_ids import RowRange
from contrastive_jax.data.sources.source import BadExampleError

PACKAGE, INSTALLED = 'fonts-noto-core', '/usr/share/fonts/truetype/noto'  # of Debian
DRAWINGS = 20  # of each letter
# Letters of a script; with these there are about as many in all as in Omniglot.
LEAST, MOST = 20, 40
# 'OLD ITALIC LETTER A' is of Old Italic; small letters, often copies of capitals, are left out.
_NAME = re.compile('(.+?) (?:CAPITAL )?(?:LETTER|SYLLABLE) ')
_PLANES = 0x20000  # end of the planes with alphabets
_SIDE, _POINTS = 64, 88  # of images, and of the fonts at twice that side
_FIT = 0.8  # longest side of a letter before its changes, as a share of the image's
# The ranges of a drawing: degrees, shear, scale of each axis, shift of each, and pixels of the
# stroke, below the last number.
_DEGREES, _SHEAR, _SCALE, _SHIFT, _STROKE = 12, 0.2, (0.75, 1), 0.05, 4


class Letter(NamedTuple):
  """A letter, with the path of its font.

  Attributes:
    character: the letter.
    script: such as 'old italic'.
    path: of the font.
  """

  character: str
  script: str
  path: str


class Scripts(Sequence):
  """Drawings of letters, black on white.

  Attributes:
    bytes: None: what is drawn is not kept.
    row_ranges: the drawings, as rows of one file.
  """

  bytes = None

  def __init__(self, folder: str, letters: Sequence[Letter]):
    """Draws nothing yet.

    Args:
      folder: of the fonts.
      letters: what to draw.
    """
    self._letters = letters
    self.row_ranges = [RowRange(folder, 0, len(self))]

  def __len__(self) -> int:
    return len(self._letters) * DRAWINGS

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the fields of a drawing, with its `image`, encoded as PNG.

    Raises:
      BadExampleError: if the font cannot be read.
    """
    letter, drawing = self._at(number)
    try:
      font = _font(letter.path, _POINTS)
    except OSError as error:
      raise BadExampleError(f'{letter.path} cannot be read: {error}') from error
    random = np.random.default_rng((ord(letter.character), drawing))
    draw(letter.character, font, random).save(encoded := io.BytesIO(), 'png', compress_level=1)
    return self.fields(number) | {'image': encoded.getvalue()}

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the name of the `letter`, its `character`, `script`, and the number `drawing`."""
    letter, drawing = self._at(number)
    name = unicodedata.name(letter.character).lower()
    own = {'letter': name, 'character': letter.character, 'script': letter.script}
    return own | {'drawing': drawing}

  def where(self, number: int) -> str:
    """Returns the path of the font."""
    return self._at(number)[0].path

  def _at(self, number: int) -> tuple[Letter, int]:
    which, drawing = divmod(number, DRAWINGS)
    return self._letters[which], drawing


def open_folder(folder: str, split: str) -> Scripts:
  """Opens the letters of the fonts in a folder; '' for that of `INSTALLED`.

  Raises:
    ValueError: if the fonts are missing, or there is no such split.
  """
  folder = folder or INSTALLED
  if split != 'train':
    raise ValueError(f"there is no split {split!r}; use 'train', and select by script")
  if not (letters := find_letters(folder)):
    raise ValueError(
      f'{folder} has no NotoSansArmenian-Regular.ttf and the like; install them on Debian or '
      f'Ubuntu: apt-get install {PACKAGE}'
    )
  return Scripts(folder, letters)


@functools.lru_cache(maxsize=4)
def find_letters(folder: str) -> tuple[Letter, ...]:
  """The letters of each script with a font of its own and `LEAST` to `MOST` letters.

  Letters that a font lacks, and those that it draws like an earlier one, are left out.
  """
  files = {name.lower(): name for name in os.listdir(folder)} if os.path.isdir(folder) else {}
  found: list[Letter] = []
  for script, characters in _scripts().items() if files else ():
    styles = (f'noto{style}{script.replace(" ", "")}-regular.ttf' for style in ('sans', 'serif'))
    path = next((os.path.join(folder, files[name]) for name in styles if name in files), None)
    if path and LEAST <= len(characters) <= MOST:
      kept = _distinct(characters, _font(path, 32))
      found += [Letter(each, script, path) for each in kept if len(kept) >= LEAST]
  return tuple(found)


def draw(letter: str, font: ImageFont.FreeTypeFont, random: np.random.Generator) -> Image.Image:
  """A drawing of a letter, 64 pixels wide, in levels of gray."""
  thick = int(random.integers(_STROKE))
  left, top, right, bottom = font.getbbox(letter, stroke_width=thick)
  size = np.array([right - left, bottom - top])
  plain = Image.new('L', (int(size[0]) + 2, int(size[1]) + 2))
  place = 1 - left, 1 - top
  ImageDraw.Draw(plain).text(place, letter, 255, font, stroke_width=thick)
  angle, shear = np.deg2rad(random.uniform(-_DEGREES, _DEGREES)), random.uniform(-_SHEAR, _SHEAR)
  scale = random.uniform(*_SCALE, 2) * 2 * _SIDE * _FIT / size.max()
  turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  back = np.linalg.inv(turn @ [[1, shear], [0, 1]] @ np.diag(scale))
  middle = _SIDE * (1 + 2 * random.uniform(-_SHIFT, _SHIFT, 2))
  fields = np.column_stack([back, size / 2 + 1 - back @ middle]).ravel().tolist()
  sides = 2 * _SIDE, 2 * _SIDE
  large = plain.transform(sides, Image.Transform.AFFINE, fields, Image.Resampling.BICUBIC)
  return large.reduce(2).point(lambda level: 255 - level)


@functools.lru_cache(maxsize=1)
def _scripts() -> dict[str, list[str]]:
  """The letters of Unicode by the script that their name begins with."""
  found: dict[str, list[str]] = collections.defaultdict(list)
  for character in map(chr, range(_PLANES)):
    if unicodedata.category(character) not in ('Lo', 'Lu'):
      continue
    named = _NAME.match(unicodedata.name(character, ''))
    if named and not unicodedata.decomposition(character):
      found[named[1].lower()].append(character)
  return found


def _distinct(characters: Sequence[str], font: ImageFont.FreeTypeFont) -> list[str]:
  """The characters that a font has, without those that look like an earlier one."""
  seen = {_mask('\uffff', font)}  # no character: what a font draws for those that it lacks
  kept = []
  for character in characters:
    mask = _mask(character, font)
    if any(mask[1]) and mask not in seen:
      seen.add(mask)
      kept.append(character)
  return kept


def _mask(character: str, font: ImageFont.FreeTypeFont) -> tuple[tuple[int, int], bytes]:
  mask = font.getmask(character)
  return mask.size, bytes(mask)


@functools.lru_cache(maxsize=256)
def _font(path: str, points: int) -> ImageFont.FreeTypeFont:
  return ImageFont.truetype(path, points, layout_engine=ImageFont.Layout.BASIC)
