"""Builds the embedded emoji and their tokenizer, the same bytes every time.

`emoji_dataset_builder.py` tells how to fetch the packages.

  python -m contrastive_jax.data.emoji.build --source=FOLDER --target=contrastive_jax/data/emoji
"""

import pathlib
import shutil
import tempfile

import tensorflow_datasets as tfds
import tokenizers
from absl import app, flags
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from contrastive_jax.data.emoji import emoji_dataset_builder

VOCABULARY_SIZE = 4096

_SOURCE = flags.DEFINE_string('source', None, 'Folder of the four unpacked npm packages.')
_TARGET = flags.DEFINE_string('target', None, 'Folder for prepared/ and tokenizer.json.')


def prepare(source: pathlib.Path, folder: pathlib.Path) -> None:
  """Prepares the set.

  Args:
    source: folder of the unpacked npm packages.
    folder: where `tfds.builder_from_directory` will find the set; replaced if it exists.

  Raises:
    ValueError: if a package is missing.
  """
  emoji_dataset_builder.find_packages(
    source
  )  # Else a missing package is an AssertionError of TFDS.
  with tempfile.TemporaryDirectory() as scratch:
    builder = emoji_dataset_builder.Builder(data_dir=scratch, file_format='array_record')
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=source))
    if folder.exists():
      shutil.rmtree(folder)
    shutil.copytree(builder.data_dir, folder)


def train_tokenizer(texts: list[str]) -> tokenizers.Tokenizer:
  """Trains a byte-level BPE: no text is unknown to it, and case does not matter.

  Args:
    texts: what to learn from; each different text counts once.

  Returns:
    The tokenizer, with `<pad>` = 0, `<start>` = 1 and `<end>` = 2 in its vocabulary.
  """
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=VOCABULARY_SIZE,
    min_frequency=2,
    special_tokens=['<pad>', '<start>', '<end>'],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(sorted(set(texts)), trainer)
  return tokenizer


def main(_) -> None:
  """Writes `prepared/` and `tokenizer.json` into the target."""
  source, target = pathlib.Path(_SOURCE.value), pathlib.Path(_TARGET.value)
  prepare(source, target / 'prepared')
  train = tfds.builder_from_directory(target / 'prepared').as_data_source(
    'train', decoders={'image': tfds.decode.SkipDecoding()}
  )
  texts = [text.decode() for example in train for text in (example['caption'], *example['tags'])]
  train_tokenizer(texts).save(str(target / 'tokenizer.json'))


if __name__ == '__main__':
  flags.mark_flags_as_required(['source', 'target'])
  app.run(main)
