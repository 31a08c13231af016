"""WebDatasets in the layout of CLIP_benchmark [1].

    FOLDER/classnames.txt, zeroshot_classification_templates.txt, dataset_type.txt
    FOLDER/SPLIT/nshards.txt, 0.tar, 1.tar, …

Samples of a set for classification have a label in a cls; those of a set for retrieval have a
caption per line in a txt.

References:
  [1] https://github.com/LAION-AI/CLIP_benchmark
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from contrastive_jax.data import images
from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.source import BadExampleError
from contrastive_jax.data.sources.webdataset import WebDataset


def open_folder(folder: str, split: str) -> 'Benchmark':
  """Opens a split.

  Args:
    folder: path of the folder.
    split: such as 'test', a folder in it.

  Raises:
    ValueError: if the folder has no such split, a shard is missing, or images have several labels.
  """
  kind = _lines(f'{folder}/dataset_type.txt') or ['classification']
  if kind[0].lower() not in ('classification', 'retrieval'):
    raise ValueError(
      f'{folder}/dataset_type.txt says {kind[0]!r}; sets for classification and for retrieval are '
      'read'
    )
  count = _lines(f'{folder}/{split}/nshards.txt')
  if not count:
    raise ValueError(
      f'{folder} has no {split}/nshards.txt, the number of its shards; use a split of '
      f'{files.folders(folder)}, as in clip_benchmark:FOLDER:test'
    )
  if not count[0].isdecimal() or not int(count[0]):
    raise ValueError(f'{folder}/{split}/nshards.txt holds {count[0]!r}, no number of shards')
  paths = files.find(f'{folder}/{split}/{{0..{int(count[0]) - 1}}}.tar')
  return Benchmark(paths, _lines(f'{folder}/classnames.txt'))


def _lines(path: str) -> list[str]:
  """Returns the lines of a file that are not blank; none if there is no such file."""
  if not files.is_file(path):
    return []
  try:
    lines = files.read(path).decode('utf-8-sig').splitlines()
  except (OSError, ValueError) as error:
    raise ValueError(f'{path} cannot be read: {error}') from error
  return [line.strip() for line in lines if line.strip()]


class Benchmark(WebDataset):
  """Examples of the shards of a split by number, see `WebDataset`."""

  kinds: ClassVar = WebDataset.kinds | {'label': ('cls',)}
  _index = 'webdataset with labels'
  _help = (
    f'an example is an image ({", ".join(images.ENDINGS)}) and a cls, or a txt with a caption per '
    'line, of the same name'
  )

  def __init__(self, paths: Sequence[str], classes: Sequence[str]):
    """Reads the headers of the shards.

    Args:
      paths: paths of the shards.
      classes: names of the labels from 0; empty if unknown.

    Raises:
      ValueError: if a shard is not an uncompressed tar.
    """
    super().__init__(paths)
    self._classes = classes

  def _parse(self, number: int, path: str, parts: Mapping[str, bytes]) -> dict[str, Any]:
    """Returns the fields of the json, captions as `caption`, the label as `cls` and `label`."""
    others = {kind: part for kind, part in parts.items() if kind != 'text'}
    record = super()._parse(number, path, others)
    try:
      if 'text' in parts:
        lines = map(str.strip, parts['text'].decode().splitlines())
        record['caption'] = [line for line in lines if line]
      if 'label' in parts:
        record['cls'] = int(parts['label'])
    except ValueError as error:
      raise BadExampleError(
        f'{self.where(number)}: its txt or cls cannot be read: {error}'
      ) from error
    if 'cls' in record and self._classes:
      if not 0 <= record['cls'] < len(self._classes):
        raise BadExampleError(
          f'{self.where(number)}: its cls is {record["cls"]}, and classnames.txt has '
          f'{len(self._classes)} names'
        )
      record['label'] = self._classes[record['cls']]
    return record
