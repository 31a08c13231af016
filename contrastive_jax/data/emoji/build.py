"""Builds the embedded emoji dataset and its tokenizers, reproducibly to the byte.

`emoji_dataset_builder.py` says how to fetch the packages.

  python -m contrastive_jax.data.emoji.build --source=FOLDER --target=contrastive_jax/data/emoji
"""

import pathlib
import shutil
import tempfile

import tensorflow_datasets as tfds
from absl import app, flags

from contrastive_jax.data import emoji
from contrastive_jax.data.emoji import emoji_dataset_builder
from contrastive_jax.data.train_tokenizer import train, train_bpe

_SOURCE = flags.DEFINE_string('source', None, 'Folder of the unpacked npm packages.')
_TARGET = flags.DEFINE_string('target', None, 'Folder for prepared/ and the tokenizers.')


def prepare(source: pathlib.Path, folder: pathlib.Path) -> None:
  """Prepares the dataset.

  Args:
    source: folder of the unpacked npm packages.
    folder: folder of the dataset, for `tfds.builder_from_directory`; replaced if it exists.

  Raises:
    ValueError: if a package is missing.
  """
  # Packages are checked here; TFDS would raise AssertionError for a missing one.
  emoji_dataset_builder.find_packages(source)
  with tempfile.TemporaryDirectory() as scratch:
    builder = emoji_dataset_builder.Builder(data_dir=scratch, file_format='array_record')
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=source))
    if folder.exists():
      shutil.rmtree(folder)
    shutil.copytree(builder.data_dir, folder)


def main(_) -> None:
  """Writes `prepared/` and the tokenizers into the target."""
  source, target = pathlib.Path(_SOURCE.value), pathlib.Path(_TARGET.value)
  prepare(source, target / 'prepared')
  examples = tfds.builder_from_directory(target / 'prepared').as_data_source(
    'train', decoders={'image': tfds.decode.SkipDecoding()}
  )
  texts = {text.decode() for example in examples for text in (example['caption'], *example['tags'])}
  train_bpe(texts).save(str(target / emoji.TOKENIZER.name))
  bilingual = target / emoji.BILINGUAL_TOKENIZER.name
  bilingual.unlink(missing_ok=True)
  train(str(target / 'prepared'), str(bilingual), fields=emoji.BILINGUAL_FIELDS)


if __name__ == '__main__':
  flags.mark_flags_as_required(['source', 'target'])
  app.run(main)
