"""Opens a source by its name in the config."""

import copy
import os
import re
from collections.abc import Sequence
from typing import Any

from contrastive_jax.data.sources import (
  array_record,
  chained,
  clip_benchmark,
  composed_sounds,
  files,
  grouped,
  image_folder,
  karpathy,
  labeled,
  lato,
  measured,
  mixture,
  optional,
  row_ids,
  rows,
  scripts,
  stamps,
  webdataset,
)
from contrastive_jax.data.sources.source import (
  Source,
  fields_of,
  named_split,
  parse_split,
  reading_ahead,
)

_CACHED_BYTES = 2**28


# Readers by scheme: paths -> a sequence of records with `bytes`, its size or None.
_FORMATS = {
  'arrayrecord': array_record.ArrayRecords,
  'csv': lambda paths: rows.Rows(paths, table=True),
  'jsonl': lambda paths: rows.Rows(paths, table=False),
  'parquet': lambda paths: optional.load('parquet').Parquet(paths),
  'webdataset': webdataset.WebDataset,
}
# Readers of files that list several splits: (paths, split) -> a sequence of records.
_SPLIT_READERS = {'karpathy': karpathy.Captioned}
# Readers of folders that hold several splits: (folder, split) -> a sequence of records.
_FOLDER_READERS = {
  'clip_benchmark': clip_benchmark.open_folder,
  'datasets': lambda folder, split: optional.load('hugging_face').open_folder(folder, split),
  'imagefolder': image_folder.open_folder,
  'lato': lato.open_folder,
  'scripts': scripts.open_folder,
  'sounds': composed_sounds.open_folder,
  'tuxpaint': stamps.open_folder,
}
_MEASURED = 'measured:'  # prefix of the name of a dataset
_SCHEMES = (*_FORMATS, *_SPLIT_READERS, *_FOLDER_READERS)


def open_source(name: str, split: str, folder: str | None = None) -> Source | mixture.Mixture:
  """Opens a split of a dataset.

  Args:
    name: one of

      - 'emoji', which is embedded; 'digits' of scikit-learn; 'fashion_mnist' of Debian's package;
        'photographs' of packages, with the splits 'scikit_image', 'opencv' and 'mate';
      - 'tfds:NAME', 'tfds:NAME/config', 'tfds:NAME:split' or 'tfds:FOLDER', a prepared TFDS
        dataset; 'tfds:' is optional in the first two, and a split in the name replaces 'train';
      - 'webdataset:PATTERN', tar shards; 'jsonl:PATTERN' and 'csv:PATTERN', with paths of images;
        'parquet:PATTERN'; 'arrayrecord:PATTERN', from data.convert;
      - 'datasets:FOLDER', saved by Hugging Face's datasets or of Parquet shards by split;
        'imagefolder:FOLDER', with a folder per class; 'clip_benchmark:FOLDER', a WebDataset of
        CLIP_benchmark; 'FOLDER:split' replaces 'train' in these;
      - 'sounds', installed sounds of Debian packages in pairs, or 'sounds:FOLDER'; splits 'train',
        'validation' and 'heldout'; 'tuxpaint', the stamps that Debian installs, or
        'tuxpaint:FOLDER'; splits 'train' and 'heldout';
      - 'lato', letters of Debian's fonts-lato in nine weights, or 'lato:FOLDER'; splits 'train' and
        'heldout';
      - 'scripts', letters of Debian's fonts-noto-core, or 'scripts:FOLDER'; split 'train';
      - 'karpathy:PATTERN', dataset_flickr30k.json or dataset_coco.json in the folder of the images;
      - 'grouped:NAME' or 'grouped:FIELD:NAME', where NAME is one of files: rows of one image, or
        with equal values of the field, are one example with a list of captions;
      - 'measured:NAME', where NAME is another dataset: with numbers that are measured from the
        image, see `measured.measure`;
      - 'A*0.7+B*0.3', a mixture by weight.

      A pattern may have braces, '{00000..00099}', and wildcards. '{split}' stands for the split's
      name; a pattern without it holds 'train' alone. Paths are fsspec's, including gs:// and s3://.
    split: a split such as 'train' or 'train[:50%]', or a selection by fields such as
      'train[vendor=noto|twemoji,similarity>0.3]', by =, !=, <, <=, > and >=; 'train[concept%5=0]'
      selects a fifth of the values of a field. A sum, 'train[skin_tone=]+train+test', concatenates
      the selections and may repeat examples.
    folder: folder of prepared TFDS datasets; default TFDS's own.

  Raises:
    ValueError: if the dataset or the split does not exist or cannot be used.
  """
  if parts := mixture.parse_mixture(name):
    sources = [open_source(part, split, folder) for part, _ in parts]
    return mixture.Mixture(sources, [weight for _, weight in parts])
  selections = parse_split(split)
  splits = list(dict.fromkeys(plain for plain, _ in selections))
  opened, sizes = zip(*(_open_split(name, plain, folder) for plain in splits), strict=True)
  records = chained.Chained(opened)
  ranges = dict(zip(splits, records.ranges, strict=True))
  return Source(
    records,
    *(where for _, where in selections),
    within=[ranges[plain] for plain, _ in selections],
    cached=None not in sizes and sum(sizes) < _CACHED_BYTES,
  )


def _open_split(name: str, split: str, folder: str | None) -> tuple[Sequence[Any], int | None]:
  """Opens a split: its records, and their bytes or None."""
  if name.startswith(_MEASURED):
    records, size = _open_split(name.removeprefix(_MEASURED), split, folder)
    return measured.of(records), size
  if name == 'emoji':
    return _prepared().open_embedded(split)
  if name in labeled.DATASETS and not folder:  # a folder is TFDS's
    return _open_labeled(name, split)
  field, ungrouped = grouped.parse(name, _SCHEMES)
  scheme, separator, rest = ungrouped.partition(':')
  if separator and scheme not in (*_SCHEMES, 'tfds') and re.match(r'[^\d].*[/.]', rest):
    raise ValueError(
      f'config.data.name = {name!r} starts with {scheme!r}; use one of {[*_SCHEMES, "tfds"]}'
    )
  if scheme not in _SCHEMES:
    return _prepared().open_prepared(name.removeprefix('tfds:'), split, folder)
  try:
    if scheme in _FOLDER_READERS:
      rest, split = named_split(rest, split)
    records = _open_files(scheme, rest, split)
    if not len(records):
      raise ValueError('it holds no example')
    records = grouped.Grouped(records, field) if field else records
    return _Slice(records, split), records.bytes
  except ValueError as error:
    raise ValueError(f'config.data.name = {name!r}: {error}') from error


def _prepared():
  # TFDS is a sixth of the start of a process, a worker's too, and many read none of its files.
  from contrastive_jax.data.sources import prepared

  return prepared


def _open_labeled(name: str, split: str) -> tuple[Sequence[Any], int | None]:
  try:
    records = labeled.DATASETS[name](split.split('[')[0])
    return _Slice(records, split), records.bytes
  except ValueError as error:
    raise ValueError(f'config.data.name = {name!r}: {error}') from error


def _open_files(scheme: str, pattern: str, split: str):
  name = split.split('[')[0]
  if scheme in _FOLDER_READERS:
    folder = os.path.expanduser(pattern.replace('{split}', name)).rstrip('/')
    return _FOLDER_READERS[scheme](folder, 'train' if '{split}' in pattern else name)
  split_reader = _SPLIT_READERS.get(scheme)
  if not split_reader and '{split}' not in pattern and name != 'train':
    raise ValueError(
      f"it holds one split, 'train', and is asked for {split!r}; where each split has files of its "
      'own write {split} for its name, else drop it from config.evaluation'
    )
  paths = files.find(pattern.replace('{split}', name))
  return split_reader(paths, name) if split_reader else _FORMATS[scheme](paths)


class _Slice(Sequence):
  """The records of a slice in TFDS's notation, such as 'train[:50%]'."""

  def __init__(self, records: Sequence[Any], split: str):
    # Like `_prepared`.
    import tensorflow_datasets as tfds

    name = split.split('[')[0]
    whole = tfds.core.SplitInfo(
      name=name, shard_lengths=[len(records)], num_bytes=0, filename_template=None
    )
    instructions = tfds.core.ReadInstruction.from_spec(split).to_absolute({name: whole})
    self._records = records
    self._ranges = [range(*slice(i.from_, i.to).indices(len(records))) for i in instructions]
    if not len(self):
      raise ValueError(f'{split!r} selects no example of {len(records)}')
    every = row_ids.row_ranges(records)
    self.row_ranges = [
      part for own in self._ranges for part in row_ids.cut(every, own.start, own.stop)
    ]

  def __len__(self) -> int:
    return sum(map(len, self._ranges))

  def __getitem__(self, index: int) -> Any:
    return self._records[self._number(index)]

  def fields(self, index: int) -> Any:
    """Returns a record without its image."""
    return fields_of(self._records, self._number(index))

  def reading_ahead(self, stretch: int, stretches: int) -> '_Slice':
    """Returns a slice of records that read stretches of files in blocks."""
    other = copy.copy(self)
    other._records = reading_ahead(self._records, stretch, stretches)
    return other

  def where(self, index: int) -> str:
    """Returns the file of a record and its name there."""
    return self._records.where(self._number(index))

  def _number(self, index: int) -> int:
    for numbers in self._ranges:
      if index < len(numbers):
        return numbers[index]
      index -= len(numbers)
    raise IndexError(index)
