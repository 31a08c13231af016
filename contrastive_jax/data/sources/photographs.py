"""Photographs that packages install: scikit-image's, OpenCV's and the MATE desktop's."""

import functools
import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contrastive_jax.data.sources.row_ids import RowRange

OPENCV = '/usr/share/doc/opencv-doc/examples'
MATE = '/usr/share/backgrounds/mate/nature'

# Files by hand: without drawings, calibration boards and the other halves of stereo pairs.
_SCIKIT_IMAGE = ('astronaut.png', 'brick.png', 'camera.png', 'chelsea.png', 'coffee.png')
_SCIKIT_IMAGE += ('coins.png', 'grass.png', 'gravel.png', 'hubble_deep_field.jpg', 'ihc.png')
_SCIKIT_IMAGE += ('moon.png', 'motorcycle_left.png', 'retina.jpg', 'rocket.jpg')
_OPENCV = ('aero1', 'aero3', 'aloeL', 'apple', 'baboon', 'board', 'building', 'butterfly')
_OPENCV += ('fruits', 'home', 'left', 'leuvenA', 'messi5', 'orange', 'squirrel_cls', 'stuff')
_OPENCV_FILES = (
  *(f'data/{name}.jpg' for name in _OPENCV),
  *(f'data/{name}.png' for name in ('chicky_512', 'graf1', 'rubberwhale1')),
  'alphamat/input_images/plant.jpg',
  'dnn_superres/butterfly.png',
  *(f'hfs/data/00{number}.jpg' for number in range(3)),
  'reg/home.png',
)
_MATE = ('Aqua', 'Blinds', 'Dune', 'FreshFlower', 'Garden', 'GreenMeadow', 'LadyBird', 'RainDrops')
_MATE += ('Storm', 'TwoWings', 'Wood', 'YellowFlower')


class Photographs(Sequence):
  """Photographs by number, each with its `title`.

  Attributes:
    bytes: size of the files.
    row_ranges: the photographs, as rows of a file of the name of the set.
  """

  def __init__(self, name: str, paths: Sequence[pathlib.Path]):
    """Holds the files of a set."""
    self._name, self._paths = name, paths
    self.bytes = sum(path.stat().st_size for path in paths)
    self.row_ranges = [RowRange(f'photographs/{name}', 0, len(paths))]

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the `image` as its file has it, and its `title`."""
    return self.fields(number) | {'image': self._paths[number].read_bytes()}

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the name of the file without its ending as `title`."""
    return {'title': self._paths[number].stem}

  def where(self, number: int) -> str:
    """Returns the file."""
    return str(self._paths[number])


def _scikit_image() -> tuple[pathlib.Path, Sequence[str], str]:
  found = importlib.util.find_spec('skimage')
  folder = pathlib.Path(found.origin).parent / 'data' if found and found.origin else pathlib.Path()
  return folder, _SCIKIT_IMAGE, 'pip install scikit-image'


# Folder, files and how to install them, by split.
SETS: Mapping[str, Callable[[], tuple[pathlib.Path, Sequence[str], str]]] = {
  'scikit_image': _scikit_image,
  'opencv': lambda: (pathlib.Path(OPENCV), _OPENCV_FILES, 'apt-get install opencv-doc'),
  'mate': lambda: (
    pathlib.Path(MATE),
    tuple(f'{name}.jpg' for name in _MATE),
    'apt-get install mate-backgrounds',
  ),
}


@functools.cache
def open_photographs(split: str) -> Photographs:
  """Opens 14 photographs of scikit-image, 25 of OpenCV's documentation, or 12 of MATE.

  Args:
    split: 'scikit_image', 'opencv' or 'mate'; 'opencv+mate' is both.

  Raises:
    ValueError: if the split is another, or its package is not installed.
  """
  if split not in SETS:
    raise ValueError(f'it has no split {split!r}; use one of {sorted(SETS)}, or a sum of them')
  folder, names, install = SETS[split]()
  paths = [folder / name for name in names]
  if missing := [path for path in paths if not path.is_file()]:
    raise ValueError(f'{missing[0]} is missing; install it: {install}')
  return Photographs(split, paths)
