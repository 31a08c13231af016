"""Tokenizers: `tokenizer.json` files, SentencePiece models, and CLIP's vocabulary."""

import functools
import gzip
import html
import itertools
import pathlib
from collections.abc import Iterable

import ftfy
import numpy as np
import regex
import sentencepiece
import tokenizers

from contrastive_jax.data import emoji

# Names of the padding, start and end tokens, by kind of file. The padding must have the id 0, even
# if that id has another meaning too. Where a file has no start token, one is added. Of other
# paddings only fairseq's is known.
_SPECIALS = (
  ('<pad>', '<start>', '<end>'),  # ours, from data.train_tokenizer
  ('!', '<|startoftext|>', '<|endoftext|>'),  # CLIP's, in Hugging Face's spelling
  ('!', '<start_of_text>', '<end_of_text>'),
  ('[PAD]', '[CLS]', '[SEP]'),  # BERT
  ('<pad>', '<bos>', '<eos>'),  # Gemma
  ('<unk>', '<s>', '</s>'),  # Llama
  ('<pad>', '<s>', '</s>'),
  ('<pad>', None, '</s>'),  # T5
)
# Tokens of fairseq in the order of their ids. RoBERTa's texts start with the first one, NLLB's with
# the token of their language, here English.
_FAIRSEQ, _NLLB_START = ('<s>', '<pad>', '</s>', '<unk>'), 'eng_Latn'

_CLIP_VOCABULARY = pathlib.Path(__file__).parent / 'clip_vocabulary/bpe_simple_vocab_16e6.txt.gz'
_CLIP_MERGES = 48_894  # the file has more, which the model was not trained with
_CLIP_START, _CLIP_END = '<start_of_text>', '<end_of_text>'
# Decodes byte-level words that end in '</w>', CLIP's; 'Ġ' stands for the space byte.
_WORD_DECODER = tokenizers.decoders.Sequence(
  [tokenizers.decoders.Replace('</w>', 'Ġ'), tokenizers.decoders.ByteLevel()]
)
_CLIP_WORDS = regex.compile(
  rf"{_CLIP_START}|{_CLIP_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
  regex.IGNORECASE,
)


class Tokenizer:
  """Tokenizer from a `tokenizer.json` of the `tokenizers` library.

  The file's normalization, such as lower case, applies; its truncation, padding and template do
  not. The ids of a text hold the start and end tokens once, whatever the text says.

  Attributes:
    length: L, ids per text.
    vocab_size: V; every id is below it.
    pad_id: 0; of RoBERTa's, XLM-RoBERTa's and NLLB's files, 1.
    start_id: the first id of every text; for a file without a start token, the id after its last.
    adds_start: whether the file has no start token.
    end_id: the last id of every text before the padding.
    path: the file read; None for CLIP's own vocabulary.
  """

  pad_id = 0
  path: pathlib.Path | None = None

  def __init__(self, path: str | pathlib.Path, length: int):
    """Reads the file.

    Args:
      path: a `tokenizer.json` whose padding (id 0), start and end tokens have the names that
        `data.train_tokenizer`, CLIP, BERT, Gemma, Llama or T5 use; or RoBERTa's or NLLB's, whose
        padding has the id 1.
      length: L, ids per text, start and end included.

    Raises:
      ValueError: if the file is of another kind, a special token is missing, or `length` leaves no
        room for a token of text.
    """
    try:
      self._bpe = tokenizers.Tokenizer.from_str(pathlib.Path(path).read_text(encoding='utf-8'))
    except Exception as error:  # the library raises nothing narrower
      raise ValueError(f'{path} is no tokenizer.json: {error}') from error
    pad, self.pad_id, start, end = _find_specials(self._bpe, path)
    self._bpe.no_padding()
    self._bpe.no_truncation()
    self._bpe.encode_special_tokens = True  # '<end>' in a caption becomes ordinary tokens
    if pad == '!':
      self._bpe.decoder = _WORD_DECODER  # the decoder in CLIP's file leaves '</w>'
    size = 1 + max(self._bpe.get_vocab().values())  # ids may have gaps
    self.path = pathlib.Path(path)
    self._set(length, size, start, end)

  def _set(self, length: int, vocab_size: int, start_id: int | None, end_id: int) -> None:
    if length < 3:
      raise ValueError(f'length = {length} has no room for start, one token and end; use 3 or more')
    self.length = length
    self.adds_start = start_id is None
    self.vocab_size = vocab_size + self.adds_start
    self.start_id = vocab_size if start_id is None else start_id
    self.end_id = end_id

  def _ids(self, texts: list[str]) -> list[list[int]]:
    encodings = self._bpe.encode_batch(texts, add_special_tokens=False)
    # Special ids are filtered because a Unigram model also finds '</s>' as an ordinary piece.
    special = (self.start_id, self.end_id)
    return [[token for token in encoding.ids if token not in special] for encoding in encodings]

  def _text(self, ids: list[int]) -> str:
    return self._bpe.decode(ids, skip_special_tokens=True)

  def __call__(self, texts: Iterable[str]) -> np.ndarray:
    """Encodes texts; a text that is too long is truncated before the end token.

    Args:
      texts: B strings.

    Returns:
      int32 [B, L]: start, ids of the text, end, padding.

    Raises:
      ValueError: if `texts` is one string, or holds something other than strings.
    """
    return self.encode(texts)[0]

  def encode(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Encodes texts, and counts the tokens that truncation removed from each, int32 [B].

    Raises:
      ValueError: see `__call__`.
    """
    if isinstance(texts, str):
      raise ValueError(f'texts = {texts!r} is one string; give a list of strings, [{texts!r}]')
    texts = list(texts)
    for text in texts:
      if not isinstance(text, str):
        raise ValueError(f'texts holds {text!r}, a {type(text).__name__}; give strings')
    room = self.length - 2
    tokens = np.full([len(texts), self.length], self.pad_id, np.int32)
    lost = np.zeros(len(texts), np.int32)
    for number, ids in enumerate(self._ids(texts)):
      lost[number] = max(len(ids) - room, 0)
      ids = [self.start_id, *ids[:room], self.end_id]
      tokens[number, : len(ids)] = ids
    return tokens, lost

  def decode(self, ids: Iterable[int]) -> str:
    """Decodes ids [L] up to the first end token, without special tokens."""
    ids = np.trim_zeros(np.asarray(ids, np.int64), 'b')
    ids = itertools.takewhile(lambda token: token != self.end_id, ids.tolist())
    return self._text(list(ids)).strip()


def _find_specials(bpe: tokenizers.Tokenizer, path) -> tuple[str, int, int | None, int]:
  """Returns the padding token and its id, the start token's id or None, and the end token's id."""
  for pad, start, end in _SPECIALS:
    ids = [0 if token is None else bpe.token_to_id(token) for token in (pad, start, end)]
    if ids[0] == 0 and None not in ids:
      return pad, 0, None if start is None else ids[1], ids[2]
  if [*map(bpe.token_to_id, _FAIRSEQ)] == [0, 1, 2, 3]:
    return _FAIRSEQ[1], 1, bpe.token_to_id(_NLLB_START) or 0, 2
  known = ', '.join(f'({pad}, {start or "none"}, {end})' for pad, start, end in _SPECIALS)
  raise ValueError(
    f'{path} has {bpe.id_to_token(0)!r} for id 0, and no padding of id 0 with start and end tokens '
    f'that are known: {known}; train one with `python -m contrastive_jax.data.train_tokenizer`'
  )


class SentencePieceTokenizer(Tokenizer):
  """Tokenizer from a SentencePiece model [1]: `*.model`, such as T5's, Gemma's and Llama's.

  The id 0 pads. It is the model's padding or, if the model has none, its unknown token.

  References:
    [1] Kudo and Richardson, SentencePiece: A Simple and Language Independent Subword Tokenizer and
      Detokenizer for Neural Text Processing, 2018.
  """

  def __init__(self, path: str | pathlib.Path, length: int):
    """Reads the file.

    Args:
      path: path of the model. A start token is added if it has none, as T5's.
      length: L, ids per text, start and end included.

    Raises:
      ValueError: if the file is of another kind, id 0 is a token of text, the end token is missing,
        or `length` is below 3.
    """
    try:
      model = sentencepiece.SentencePieceProcessor(model_proto=pathlib.Path(path).read_bytes())
    except RuntimeError as error:
      raise ValueError(f'{path} is no SentencePiece model: {error}') from error
    size = model.get_piece_size()
    if not size:
      raise ValueError(f'{path} is no SentencePiece model: it has no piece')
    padded = model.pad_id() == 0 or (model.pad_id() < 0 and model.unk_id() == 0)
    if not padded or model.eos_id() < 1:
      raise ValueError(
        f'{path} has {model.id_to_piece(0)!r} for id 0, pad_id {model.pad_id()} and eos_id '
        f'{model.eos_id()}; train it with --pad_id=0 --eos_id=1'
      )
    self._model, self.path = model, pathlib.Path(path)
    self._set(length, size, None if model.bos_id() < 0 else model.bos_id(), model.eos_id())

  def _ids(self, texts: list[str]) -> list[list[int]]:
    return [self._model.encode(text) for text in texts]  # a list would start threads

  def _text(self, ids: list[int]) -> str:
    size = self._model.get_piece_size()  # a captioner may generate ids beyond the pieces
    return self._model.decode([token for token in ids if token < size])


class ClipTokenizer(Tokenizer):
  """CLIP's tokenizer [1], equal to open_clip's for any text.

  As in open_clip, a text that spells out `<start_of_text>` or `<end_of_text>` gets that token.

  References:
    [1] Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.

  >>> ClipTokenizer(length=8)(['a photo of a cat']).tolist()
  [[49406, 320, 1125, 539, 320, 2368, 49407, 0]]
  """

  def __init__(self, length: int = 77, vocabulary: str | pathlib.Path | None = None):
    """Reads the vocabulary.

    Args:
      length: L, ids per text, start and end included.
      vocabulary: path of `bpe_simple_vocab_16e6.txt.gz`; default: the copy in this package.

    Raises:
      ValueError: if the file is not that vocabulary, or `length` is below 3.
    """
    self._bpe = _clip_bpe(str(vocabulary or _CLIP_VOCABULARY))
    start, end = map(self._bpe.token_to_id, (_CLIP_START, _CLIP_END))
    self._set(length, self._bpe.get_vocab_size(), start, end)

  @property
  def words(self) -> dict[str, int]:
    """The ids of all tokens except start and end."""
    special = (self.start_id, self.end_id)
    return {token: id_ for token, id_ in self._bpe.get_vocab().items() if id_ not in special}

  def _ids(self, texts: list[str]) -> list[list[int]]:
    words = (_CLIP_WORDS.findall(_clip_clean(text)) for text in texts)
    return [[id_ for word in found for id_ in _word_ids(self._bpe, word)] for found in words]


@functools.lru_cache(2**16)
def _word_ids(bpe: tokenizers.Tokenizer, word: str) -> list[int]:
  return bpe.encode([word], is_pretokenized=True, add_special_tokens=False).ids


def _clip_clean(text: str) -> str:
  # Printable ASCII without entities needs no cleaning.
  if not (text.isascii() and text.isprintable() and '&' not in text):
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
  return ' '.join(text.split()).lower()


@functools.lru_cache(maxsize=1)
def _clip_bpe(path: str) -> tokenizers.Tokenizer:
  """Builds CLIP's BPE; ids are in the order bytes, word-final bytes, merges, special tokens."""
  try:
    with gzip.open(path, 'rt', encoding='utf-8') as lines:
      merges = [tuple(line.split()) for line in itertools.islice(lines, 1, 1 + _CLIP_MERGES)]
  except (gzip.BadGzipFile, EOFError, UnicodeDecodeError):
    merges = []
  if len(merges) != _CLIP_MERGES or any(len(merge) != 2 for merge in merges):
    raise ValueError(f"vocabulary = {path} is not CLIP's bpe_simple_vocab_16e6.txt.gz")
  # Printable bytes come first, as themselves; the others follow under substitute characters.
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  words = [letter + '</w>' for letter in alphabet]
  vocabulary = [*alphabet, *words, *map(''.join, merges), _CLIP_START, _CLIP_END]
  bpe = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      {token: index for index, token in enumerate(vocabulary)}, merges, end_of_word_suffix='</w>'
    )
  )
  bpe.add_special_tokens([_CLIP_START, _CLIP_END])
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  bpe.decoder = _WORD_DECODER
  return bpe


def open_tokenizer(name: str, length: int) -> Tokenizer:
  """Opens a tokenizer by name.

  Args:
    name: 'emoji', 'emoji_en_zh' or 'clip', which are embedded; or the path of a SentencePiece model
      (`*.model`) or of a `tokenizer.json`.
    length: L, ids per text, start and end included.

  Raises:
    ValueError: if the file is missing or cannot be used.
  """
  if name == 'clip':
    return ClipTokenizer(length)
  embedded = {'emoji': emoji.TOKENIZER, 'emoji_en_zh': emoji.BILINGUAL_TOKENIZER}
  path = embedded.get(name) or pathlib.Path(name).expanduser()
  if not path.is_file():
    raise ValueError(
      f"config.data.tokenizer = {name!r} is no file; use 'emoji', 'emoji_en_zh', 'clip', a "
      'tokenizer.json or a SentencePiece .model'
    )
  return (SentencePieceTokenizer if path.suffix == '.model' else Tokenizer)(path, length)
