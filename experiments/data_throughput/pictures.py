"""The images of the experiments with files: JPEGs of 256 pixels, in every format."""

import io
import pathlib

import tensorflow_datasets as tfds
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data import convert, images

SIDE = 256
MOST = 6_900  # images, nearly all of the training emoji


def enlarged(encoded: bytes) -> bytes:
  """Encodes an image in img2dataset's form: a JPEG of 256 pixels."""
  picture = images.decode(encoded).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
  buffer = io.BytesIO()
  picture.save(buffer, 'JPEG', quality=95)
  return buffer.getvalue()


class Pictures(tfds.core.GeneratorBasedBuilder):
  """The images as a TFDS dataset."""

  VERSION = tfds.core.Version('1.0.0')
  count = MOST

  def _info(self):
    features = {'image': tfds.features.Image(), 'caption': tfds.features.Text()}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, download_manager):
    del download_manager
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    source = data.open_source('emoji', 'train')
    for number in range(self.count):
      example = source[number]
      yield number, {'image': enlarged(example['image']), 'caption': example['caption']}


def prepare(folder: pathlib.Path, count: int = MOST) -> dict[str, str]:
  """Writes the missing formats; returns the name of each source by format."""
  builder = Pictures(data_dir=folder, file_format='array_record')
  builder.count = count
  builder.download_and_prepare()
  names = {'tfds': f'tfds:{builder.data_path}'}
  for style in ('arrayrecord', 'webdataset', 'jsonl', 'parquet'):
    target = f'{style}:{folder / style}'
    names[style] = convert.convert(names['tfds'], target, shard_size=1_000)['name']
  return names
