"""Data sets that TFDS has prepared, and the embedded emoji, which are one."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from contrastive_jax.data import emoji
from contrastive_jax.data.sources import tfrecord

_SKIP_DECODING = {'image': tfds.decode.SkipDecoding()}


def open_prepared(name: str, split: str, folder: str | None) -> tuple[Sequence[Any], int]:
  """Opens a split.

  Args:
    name: 'emoji', 'NAME', 'NAME/config' or the folder that holds its dataset_info.json. A split
      after a colon, 'NAME:test', stands in for 'train'.
    split: a TFDS split such as 'train' or 'train[:50%]'.
    folder: where TFDS data sets are prepared; default TFDS's own.

  Returns:
    The examples by number, images encoded; and the bytes of the split's files.

  Raises:
    ValueError: if there is no such data set, prepared for random access, or no such split.
  """
  # A version, as in 'NAME:1.0.0', is TFDS's own affair.
  if match := re.fullmatch(r'(.+?):([a-zA-Z_][^/]*)', name):
    name, named = match.groups()
    split = named if split == 'train' else split
  try:
    if name == 'emoji':
      builder = tfds.builder_from_directory(emoji.PREPARED)
    elif name.startswith(('/', '.', '~')):
      builder = tfds.builder_from_directory(name)
    else:
      builder = tfds.builder(name, data_dir=folder, try_gcs=False)
    if re.split(r'[\[+]', split)[0] not in builder.info.splits:
      raise ValueError(
        f'{name!r} has no split {split!r}; '
        f'use one of {sorted(builder.info.splits)}, after its download_and_prepare()'
      )
    if builder.info.file_format is tfds.core.FileFormat.TFRECORD:
      parse = functools.partial(
        builder.info.features.deserialize_example_np, decoders=_SKIP_DECODING
      )
      records = tfrecord.TfRecords(builder.info.splits[split].file_instructions, parse)
    else:
      records = builder.as_data_source(split, decoders=_SKIP_DECODING)
  except (tfds.core.DatasetNotFoundError, FileNotFoundError, NotImplementedError) as error:
    raise ValueError(
      f'config.data.name = {name!r} cannot be read from {folder or "the default TFDS folder"}: '
      f"{str(error).strip().splitlines()[0]} Use 'emoji', or prepare it with "
      f"tfds.builder({name!r}, file_format='array_record').download_and_prepare()"
    ) from error
  return records, builder.info.splits[split].num_bytes
