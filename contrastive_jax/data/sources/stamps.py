"""Tux Paint's stamps: pictures with names in many languages, written and spoken.

Debian's tuxpaint-stamps-default has X.png, X.txt with the description in English and then in other
languages, and X_desc_LANG.ogg, the description as it is spoken. It is under the GPL.
"""

import functools
import hashlib
import io
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from contrastive_jax.data.sources.row_ids import RowRange
from contrastive_jax.data.sources.source import BadExampleError

PACKAGE, FOLDER = 'tuxpaint-stamps-default', '/usr/share/tuxpaint/stamps'
SPLITS = ('train', 'heldout')
_SIDE = 128  # pixels of the longer side, at most


def open_folder(folder: str, split: str) -> 'Stamps':
  """Opens a split of the stamps in a folder, by default where Debian installs them.

  Raises:
    ValueError: if there are no stamps, or there is no such split.
  """
  if split not in SPLITS:
    raise ValueError(f'there is no split {split!r}; use one of {[*SPLITS]}')
  root = pathlib.Path(folder or FOLDER)
  paths = [path for path in sorted(root.rglob('*.png')) if path.with_suffix('.txt').exists()]
  if not paths:
    raise ValueError(f'{root} has no stamps; apt-get install {PACKAGE}')
  return Stamps(root, paths, split)


class Stamps(Sequence):
  """Stamps by number, in the order of their paths.

  A fifth of the captions is held out, with all of their stamps: the hash of a caption decides.

  Attributes:
    bytes: at most the size of the pictures.
    row_ranges: the stamps.
  """

  def __init__(self, root: pathlib.Path, paths: Sequence[pathlib.Path], split: str):
    """Reads the descriptions.

    Args:
      root: the folder.
      paths: of the pictures.
      split: 'train' or 'heldout'.
    """
    described = [(path, describe(path.with_suffix('.txt'))) for path in paths]
    held = split == 'heldout'
    self._stamps = [stamp for stamp in described if stamp[1][0] and _is_held(stamp[1][0]) == held]
    self.bytes = len(self._stamps) * 3 * _SIDE**2
    self.row_ranges = [RowRange(f'{root}: {split}', 0, len(self._stamps))]

  def __len__(self) -> int:
    return len(self._stamps)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the fields of a stamp with its encoded picture.

    Raises:
      BadExampleError: if the picture cannot be read.
    """
    try:
      return self.fields(number) | {'image': picture(self._stamps[number][0], _SIDE)}
    except (OSError, ValueError) as error:
      raise BadExampleError(f'{self.where(number)}: {error}') from error

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the `caption`, `names` by language, and what is spoken.

    `speech` is the path of the sound by language, `voices` has all of them, and `spoken` is their
    number.
    """
    path, (caption, names) = self._stamps[number]
    speech = _speech(path.parent).get(path.stem, {})
    voices = [*speech.values()]
    given = {'caption': caption, 'names': names, 'speech': speech, 'voices': voices}
    return given | {'spoken': len(voices)}

  def where(self, number: int) -> str:
    """Returns the path of the picture."""
    return str(self._stamps[number][0])


def describe(description: pathlib.Path) -> tuple[str, dict[str, str]]:
  """Returns the English description without article and full stop, and others by language."""
  first, *others = description.read_text(encoding='utf-8', errors='replace').splitlines() or ['']
  caption = re.sub(r'^(a|an|the) ', '', first.strip().rstrip('.!').lower())
  pairs = (line.partition('.utf8=') for line in others)
  return caption, {language: text.strip() for language, _, text in pairs if text.strip()}


def picture(path: pathlib.Path, most: int | None = None) -> bytes:
  """Returns a stamp as a square PNG, over white, since readers drop transparency.

  Args:
    path: of the picture.
    most: pixels of the side, at most; None to keep the size.
  """
  with Image.open(path) as image:
    image = image.convert('RGBA')
  if most is not None:
    image.thumbnail((most, most))
  side = max(image.size)
  square = Image.new('RGBA', (side, side), 'white')
  square.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
  file = io.BytesIO()
  square.convert('RGB').save(file, 'PNG')
  return file.getvalue()


@functools.lru_cache
def _speech(folder: pathlib.Path) -> dict[str, dict[str, str]]:
  """Returns the paths of the spoken descriptions in a folder, by stamp and language."""
  found: dict[str, dict[str, str]] = {}
  for path in sorted(folder.glob('*_desc_*.ogg')):
    stem, _, language = path.stem.rpartition('_desc_')
    found.setdefault(stem, {})[language] = str(path)
  return found


def _is_held(caption: str) -> bool:
  return hashlib.blake2b(caption.encode()).digest()[0] % 5 == 0
