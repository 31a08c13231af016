"""Datasets prepared by TFDS, the embedded emoji among them."""

import copy
import functools
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.dataset_info import DatasetInfoFileError

from contrastive_jax.data import emoji
from contrastive_jax.data.sources import tfrecord
from contrastive_jax.data.sources.row_ids import RowRange
from contrastive_jax.data.sources.source import BadExampleError, named_split, reading_ahead

_SKIP_DECODING = {'image': tfds.decode.SkipDecoding()}


def open_prepared(name: str, split: str, folder: str | None) -> tuple[Sequence[Any], int | None]:
  """Opens a split.

  Args:
    name: 'emoji', 'NAME', 'NAME/config' or the folder that holds dataset_info.json. A split after a
      colon, 'NAME:test', replaces 'train'.
    split: a TFDS split such as 'train' or 'train[:50%]'.
    folder: folder of prepared TFDS datasets; default TFDS's own.

  Returns:
    The examples by number, and the bytes of the files of the whole split, None if unknown. Images
    are encoded, classes are names, and a sequence of dicts with a `text` is a list of texts.

  Raises:
    ValueError: if the dataset is not prepared for random access, or has no such split.
  """
  name, split = named_split(name, split)  # TFDS itself parses a version, as in 'NAME:1.0.0'
  try:
    if name == 'emoji':
      builder = tfds.builder_from_directory(emoji.PREPARED)
    elif name.startswith(('/', '.', '~')) or '://' in name:
      builder = tfds.builder_from_directory(name)
    else:
      builder = _find(name, folder)
    names = {part.split('[')[0].strip() for part in split.split('+')}
    if not names <= builder.info.splits.keys():
      raise ValueError(
        f'{name!r} has no split {split!r}; '
        f'use one of {sorted(builder.info.splits)}, after its download_and_prepare()'
      )
    # TFDS reports 0 for an unknown size, and for any slice.
    sizes = [int(builder.info.splits[name].num_bytes) for name in names]
    return _Prepared(builder.info, split), sum(sizes) if all(sizes) else None
  except DatasetInfoFileError as error:
    raise ValueError(
      f'config.data.name = {name!r} is no prepared TFDS data set: {error}; give the folder of its '
      'version, as in NAME/1.0.0'
    ) from error
  except (
    tfds.core.DatasetNotFoundError,
    FileNotFoundError,
    ImportError,
    NotImplementedError,
  ) as error:
    raise ValueError(
      f'config.data.name = {name!r} cannot be read from {folder or "the default TFDS folder"}: '
      f"{str(error).strip().splitlines()[0]} Use 'emoji', or prepare it with "
      f"tfds.builder({name!r}, file_format='array_record').download_and_prepare(), "
      'which for some needs TensorFlow'
    ) from error


@functools.cache
def open_embedded(split: str) -> tuple[Sequence[Any], int | None]:
  """Opens a split of the embedded emoji, whose records a process parses once."""
  records, size = open_prepared('emoji', split, None)
  return _Parsed(records), size


def _find(name: str, folder: str | None) -> tfds.core.DatasetBuilder:
  """Finds a builder by the files on disk; the code of some builders needs TensorFlow."""
  try:
    return read_only_builder.builder_from_files(name, data_dir=folder)
  except tfds.core.DatasetNotFoundError:
    return tfds.builder(name, data_dir=folder, try_gcs=False)


class _Prepared(Sequence):
  """The examples of a split by number; it can be sent to other processes.

  Attributes:
    row_ranges: the records of each file.
  """

  def __init__(self, info: tfds.core.DatasetInfo, split: str):
    instructions = info.splits[split].file_instructions
    if info.file_format is tfds.core.FileFormat.TFRECORD:
      self._records = tfrecord.TfRecords(instructions)
    elif info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
      self._records = grain.sources.ArrayRecordDataSource(instructions)
    else:
      raise NotImplementedError(f'{info.file_format} is not read by place.')
    self._features = info.features
    self.row_ranges = [
      RowRange(str(each.filename), each.skip, each.skip + each.take) for each in instructions
    ]

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the features, with images encoded.

    Raises:
      BadExampleError: if the record cannot be read or does not parse.
      RuntimeError: if an ArrayRecord file is missing or damaged.
    """
    record = self._records[number]
    try:
      example = self._features.deserialize_example_np(record, decoders=_SKIP_DECODING)
    except (ValueError, DecodeError) as error:
      raise BadExampleError(f'the record does not parse: {error}') from error
    return _named(self._features, example)

  def reading_ahead(self, stretch: int, stretches: int) -> '_Prepared':
    """Returns a copy that reads stretches of tfrecord files in blocks."""
    other = copy.copy(self)
    other._records = reading_ahead(self._records, stretch, stretches)
    return other

  def where(self, number: int) -> str:
    """Returns the file of a record and its number there."""
    for each in self.row_ranges:
      if number < each.size:
        return f'{each.file}: record {each.start + number}'
      number -= each.size
    raise IndexError(number)


class _Parsed(Sequence):
  """Records that are parsed once."""

  def __init__(self, records: Sequence[Any]):
    self._records, self._parsed = records, {}

  @property
  def row_ranges(self) -> list[RowRange]:
    """The records of each file."""
    return self._records.row_ranges

  def __getstate__(self) -> dict[str, Any]:
    # A copy in another process starts with an empty cache.
    return vars(self) | {'_parsed': {}}

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, number: int) -> dict[str, Any]:
    if number not in self._parsed:
      self._parsed[number] = self._records[number]
    return self._parsed[number]

  def where(self, number: int) -> str:
    """Returns the file of a record and its number there."""
    return self._records.where(number)


def _named(feature: tfds.features.FeatureConnector, value: Any) -> Any:
  """Replaces class labels by their names; '' for a missing label, -1 in TFDS."""
  if isinstance(feature, tfds.features.ClassLabel):
    names = [feature.int2str(number) if number >= 0 else '' for number in np.ravel(value).tolist()]
    return names if np.ndim(value) else names[0]
  if isinstance(feature, tfds.features.Sequence):
    value = _named(feature.feature, value)
    return value['text'] if isinstance(value, dict) and 'text' in value else value
  if isinstance(feature, tfds.features.FeaturesDict):
    return {name: _named(feature[name], item) for name, item in value.items()}
  return value
