"""Trains a tokenizer on the captions of a source: python -m contrastive_jax.data.train_tokenizer.

  python -m contrastive_jax.data.train_tokenizer 'jsonl:/data/{split}.jsonl' /data/tokenizer.json
  python -m contrastive_jax.data.train_tokenizer tfds:coco_captions /data/coco.model \
      --fields=captions.text --vocabulary=8192

SOURCE is any value of config.data.name. TARGET ends in .json for a byte-level BPE, or in .model for
a SentencePiece model; both encode any text. For a large source a part suffices: --split=train[:5%].
The last line printed holds the flags to train with.
"""

import io
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import rich.console
import rich.progress
import sentencepiece
import tokenizers
from absl import app, flags, logging
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from contrastive_jax.data.batches import BadExamples
from contrastive_jax.data.captions import texts_of
from contrastive_jax.data.sources import files, open_source
from contrastive_jax.data.sources.source import location_of
from contrastive_jax.data.tokenizers import open_tokenizer

# Number of captions, spread over the source, whose token counts are measured.
_MEASURED_CAPTIONS = 100_000


def train_bpe(
  texts: Iterable[str], vocabulary: int = 4096, lowercase: bool = True
) -> tokenizers.Tokenizer:
  """Trains a byte-level BPE, which encodes any text.

  Args:
    texts: training texts, in any order.
    vocabulary: maximum number of tokens; few texts give fewer.
    lowercase: whether to lowercase texts.

  Returns:
    The tokenizer, with `<pad>` = 0, `<start>` = 1 and `<end>` = 2 in its vocabulary.

  Raises:
    ValueError: if the vocabulary has no room for the bytes.
  """
  if vocabulary < 3 + 2**8:
    raise ValueError(
      f'vocabulary = {vocabulary} has no room for three tokens and bytes; use 259 up'
    )
  tokenizer = tokenizers.Tokenizer(models.BPE())
  cleaning = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
  tokenizer.normalizer = normalizers.Sequence(cleaning)
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=vocabulary,
    min_frequency=2,
    special_tokens=['<pad>', '<start>', '<end>'],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  return tokenizer


def train_sentencepiece(
  texts: Iterable[str], vocabulary: int = 4096, lowercase: bool = True
) -> bytes:
  """Trains a SentencePiece Unigram model, which holds all texts in memory.

  Args:
    texts: training texts.
    vocabulary: maximum number of pieces; few texts give fewer.
    lowercase: whether to lowercase texts.

  Returns:
    The model file: padding = 0, start = 1, end = 2, unknown = 3, which byte fallback replaces.

  Raises:
    ValueError: if the vocabulary has no room for the bytes and the letters of the texts.
  """
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts),
      model_writer=model,
      vocab_size=vocabulary,
      hard_vocab_limit=False,
      pad_id=0,
      bos_id=1,
      eos_id=2,
      unk_id=3,
      byte_fallback=True,
      normalization_rule_name='nmt_nfkc_cf' if lowercase else 'nmt_nfkc',
      num_threads=1,  # more would make the result depend on the order of sums
      minloglevel=2,
    )
  except RuntimeError as error:
    raise ValueError(f'vocabulary = {vocabulary} cannot be trained: {error}') from error
  return model.getvalue()


def train(
  name: str,
  target: str,
  *,
  vocabulary: int = 4096,
  fields: Sequence[str] = ('caption',),
  lowercase: bool = True,
  split: str = 'train',
  folder: str | None = None,
) -> dict[str, Any]:
  """Trains a tokenizer on the captions of a source, and writes it.

  Args:
    name: name of the source, see `open_source`.
    target: file to write, '*.json' or '*.model'.
    vocabulary: maximum number of ids.
    fields: fields of the texts, see `data.captions`.
    lowercase: whether to lowercase texts.
    split: see `open_source`.
    folder: see `open_source`.

  Returns:
    `captions` and `skipped`, counts; `vocabulary`, the number of ids; `mean`, `percentile_99` and
    `longest`, tokens per caption without start and end.

  Raises:
    ValueError: if the source or the target cannot be used, a field is missing, or too many examples
      are bad.
  """
  path = pathlib.Path(target)
  if path.suffix not in ('.json', '.model') or path.exists():
    raise ValueError(
      f'TARGET = {target!r} {"exists" if path.exists() else "has another ending"}; use a new file '
      'that ends in .json or .model'
    )
  captions = _Captions(open_source(name, split, folder), fields)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(str(path)) as partial:
    if path.suffix == '.json':
      train_bpe(captions, vocabulary, lowercase).save(partial)
    else:
      pathlib.Path(partial).write_bytes(train_sentencepiece(captions, vocabulary, lowercase))
  tokenizer = open_tokenizer(target, 64)
  tokens, lost = tokenizer.encode(captions.measured)
  lengths = lost + np.argmax(tokens == tokenizer.end_id, axis=1) - 1
  return {
    'captions': captions.count,
    'skipped': captions.bad_examples.skipped,
    'vocabulary': tokenizer.vocab_size,
    'mean': float(lengths.mean()),
    'percentile_99': int(np.percentile(lengths, 99, method='higher')),
    'longest': int(lengths.max()),
  }


class _Captions:
  """Iterates over the texts of a source; bad examples are skipped, counted and logged.

  Attributes:
    count: number of texts so far.
    measured: an evenly spread sample of them.
    bad_examples: counts the bad examples.
  """

  def __init__(self, source, fields: Sequence[str]):
    self._source, self._fields = source, fields
    self.count, self.measured, self.bad_examples = 0, [], BadExamples(len(source))

  def __iter__(self) -> Iterator[str]:
    every = -(-len(self._source) // _MEASURED_CAPTIONS)
    console = rich.console.Console(stderr=True)
    for number in rich.progress.track(range(len(self._source)), 'captions', console=console):
      example, texts = self._read(number)
      if self.bad_examples(example):
        self.count += len(texts)
        if number % every == 0:
          self.measured += texts
        yield from texts

  def _read(self, number: int) -> tuple[dict[str, Any], list[str]]:
    example = self._source.fields(number)
    if 'error' in example:
      return example, []
    try:
      if texts := texts_of(example, self._fields):
        return example, texts
      raise ValueError(f'the caption is empty (fields {self._fields} of {sorted(example)})')
    except ValueError as error:
      return {'id': example['id'], 'error': f'{location_of(self._source, number)}: {error}'}, []


def main(arguments: list[str]) -> None:
  """Trains a tokenizer, and prints its statistics and the flags to train a model with."""
  logging.set_verbosity(logging.WARNING)
  if len(arguments) != 3:
    raise app.UsageError('give SOURCE and TARGET')
  _, name, target = arguments
  names = ('vocabulary', 'fields', 'lowercase', 'split', 'folder')
  report = train(name, target, **{name: flags.FLAGS[name].value for name in names})
  print(f'{report["captions"]:,} captions, skipped {report["skipped"]:,} examples')
  print(
    f'{report["vocabulary"]:,} ids; tokens per caption: mean {report["mean"]:.1f}, '
    f'99% have at most {report["percentile_99"]}, longest {report["longest"]}'
  )
  print(
    f'--config.data.tokenizer={target} --config.model.text.vocabulary={report["vocabulary"]} '
    f'--config.model.text.length={max(report["percentile_99"], 1) + 2}'
  )


if __name__ == '__main__':
  # Flags are defined here because other modules in the process may define the same names.
  flags.DEFINE_integer('vocabulary', 4096, 'Maximum number of ids.', lower_bound=1)
  flags.DEFINE_list('fields', ['caption'], 'Fields of the texts, as in config.data.captions.')
  flags.DEFINE_bool('lowercase', True, 'Lowercase texts.')
  flags.DEFINE_string('split', 'train', 'Split of the source, as config.data.split.')
  flags.DEFINE_string('folder', None, 'Folder of prepared TFDS datasets, as config.data.folder.')
  app.run(main)
