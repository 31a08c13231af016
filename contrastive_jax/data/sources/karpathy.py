"""Karpathy and Li's splits of the retrieval sets: dataset_flickr30k.json, dataset_coco.json.

The files list each image with its split and captions.
"""

import json
import posixpath
from collections.abc import Sequence
from typing import Any

from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.row_ids import whole_files
from contrastive_jax.data.sources.source import BadExampleError


class Captioned:
  """Images of a split by number, each with all of its captions.

  Attributes:
    bytes: None; the size of the images is unknown.
    row_ranges: the images of the split in each file.
  """

  bytes = None

  def __init__(self, paths: Sequence[str], split: str):
    """Reads the files.

    Args:
      paths: paths of the files, each in the folder of its images.
      split: 'train', 'val', 'test', or COCO's 'restval'.

    Raises:
      ValueError: if a file has another format or lacks the split.
    """
    self._images, splits, lengths = [], set(), []
    for path in paths:
      try:
        entries = json.loads(files.read(path))['images']
        splits.update(entry['split'] for entry in entries)
        own = [(posixpath.dirname(path), entry) for entry in entries if entry['split'] == split]
        self._images += own
        lengths.append(len(own))
      except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is no file of Karpathy's splits: {error!r}") from error
    if not self._images:
      raise ValueError(f'{paths[0]} has no split {split!r}; use one of {sorted(map(str, splits))}')
    self.row_ranges = whole_files([f'{path}: {split}' for path in paths], lengths)

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the encoded image, its `captions`, and its `filename`.

    Raises:
      BadExampleError: if the entry has no captions, or the image cannot be read.
    """
    path, fields = self._path_and_fields(number)
    return {'image': files.read_image(path)} | fields

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the `captions` and the `filename` of an image, whose file is not opened."""
    return self._path_and_fields(number)[1]

  def _path_and_fields(self, number: int) -> tuple[str, dict[str, Any]]:
    _, entry = self._images[number]
    try:
      captions = [sentence['raw'] for sentence in entry['sentences']]
      return self.where(number), {'captions': captions, 'filename': entry['filename']}
    except (TypeError, KeyError) as error:
      raise BadExampleError(f'the entry {number} has no {error}') from error

  def where(self, number: int) -> str:
    """Returns the path of the image."""
    folder, entry = self._images[number]
    return posixpath.join(folder, entry.get('filepath', ''), entry['filename'])  # COCO has filepath
