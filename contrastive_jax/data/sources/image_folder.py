"""Folders of images, with a folder per class or a table of metadata, as Hugging Face reads them.

    FOLDER/SPLIT/CLASS/*.jpg, or FOLDER/CLASS/*.jpg for the split 'train' alone
    FOLDER/SPLIT/metadata.jsonl, or .csv, with the column file_name

See https://huggingface.co/docs/datasets/image_dataset#imagefolder.
"""

import itertools
import os
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from absl import logging

from contrastive_jax.data import images
from contrastive_jax.data.sources import files, rows
from contrastive_jax.data.sources.row_ids import RowRange
from contrastive_jax.runtime.waiting import waiting

_METADATA = ('metadata.jsonl', 'metadata.csv')


def open_folder(folder: str, split: str) -> Sequence[Any]:
  """Opens a split: the rows of its metadata, or all of its images.

  Args:
    folder: path of the folder.
    split: a folder in it; for 'train' the folder itself where there is none.

  Raises:
    ValueError: if the folder has no such split or no images, or images lie beside folders of
      classes.
  """
  inner = files.folders(folder)
  if split in inner:
    folder = f'{folder}/{split}'
  elif split != 'train':
    raise ValueError(f'{folder} has no folder {split!r}; use a split of {inner}')
  with waiting(f'listing {folder}'):
    names = sorted(_list(folder))
  metadata = [name for name in names if posixpath.basename(name) in _METADATA]
  if not metadata:
    return ImageFolder(folder, names)
  if len(endings := {name.rpartition('.')[2] for name in metadata}) > 1:
    raise ValueError(f'{folder} has metadata in {sorted(endings)}; use one format')
  paths = [f'{folder}/{name}' for name in metadata]
  return rows.Rows(paths, table=endings == {'csv'})


def _list(folder: str) -> Iterable[str]:
  """Yields the paths, relative to a folder, of all files below it that are not hidden."""
  if files.is_local(folder):
    for place, inner, names in os.walk(folder, followlinks=True):
      inner[:] = [name for name in inner if not name.startswith('.')]
      start = os.path.relpath(place, folder)
      for name in names:
        yield name if start == '.' else f'{start}/{name}'
    return
  system, plain = files.open_system(folder)
  start = len(plain.rstrip('/')) + 1
  for path in files.retry(folder, system.find, plain):
    yield path[start:]


class ImageFolder:
  """Images of a folder by number, in the order of their paths.

  Attributes:
    bytes: None; the size of the images is unknown.
    row_ranges: the images of the folder.
  """

  bytes = None

  def __init__(self, folder: str, names: Sequence[str]):
    """Finds the classes: the folders in the folder, which may have folders themselves.

    Args:
      folder: path of the folder.
      names: sorted paths of files in it.

    Raises:
      ValueError: if there are no images, or some of them lie beside the folders of classes.
    """
    kept = [
      name
      for name in names
      if name.rpartition('.')[2].lower() in images.ENDINGS
      and not posixpath.basename(name).startswith('.')
    ]
    if not kept:
      raise ValueError(
        f'{folder} has no image, a file that ends in one of {", ".join(images.ENDINGS)}'
      )
    if len(kept) < len(names):
      first = next(a for a, b in itertools.zip_longest(names, kept) if a != b)
      logging.warning(
        '%s: %d files are no images, the first is %s', folder, len(names) - len(kept), first
      )
    self._folder, self._classes = folder, _find_classes(folder, kept)
    # One array of bytes takes a third of the memory of strings.
    encoded = [os.fsencode(name) for name in kept]
    self._names, self._ends = b''.join(encoded), np.cumsum([len(name) for name in encoded])
    self.row_ranges = [RowRange(folder, 0, len(kept))]

  def __len__(self) -> int:
    return len(self._ends)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the encoded image and its fields.

    Raises:
      BadExampleError: if the image cannot be read.
    """
    return self.fields(number) | {'image': files.read_image(self.where(number))}

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the `file_name`, the class as `label` and its number as `cls`; no file is opened."""
    name = self._name(number)
    if not self._classes:
      return {'file_name': name}
    label = name.partition('/')[0]
    return {'file_name': name, 'label': label, 'cls': self._classes[label]}

  def where(self, number: int) -> str:
    """Returns the path of the image."""
    return f'{self._folder}/{self._name(number)}'

  def _name(self, number: int) -> str:
    start = self._ends[number - 1] if number else 0
    return os.fsdecode(self._names[start : self._ends[number]])


def _find_classes(folder: str, names: Sequence[str]) -> dict[str, int]:
  """Returns the numbers of the classes, from 0 in their order, by name; {} without classes."""
  inner = [name.partition('/')[0] for name in names if '/' in name]
  if not inner:
    return {}
  if len(inner) < len(names):
    beside = next(name for name in names if '/' not in name)
    raise ValueError(
      f'{folder} has images beside its folders of classes, such as {beside}; put all into folders, '
      'or list them in a metadata.jsonl'
    )
  classes = sorted(set(inner))
  empty = [name for name in files.folders(folder) if name not in classes and name[0] != '.']
  if empty:
    raise ValueError(f'{folder} has folders without an image: {empty}; fill or remove them')
  return {name: number for number, name in enumerate(classes)}
