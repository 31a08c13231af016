"""From text to token ids: any trained `tokenizers` file, and the vocabulary of OpenAI's CLIP."""

import functools
import gzip
import html
import itertools
import pathlib
from collections.abc import Iterable

import ftfy
import numpy as np
import regex
import tokenizers

from contrastive_jax.data import emoji

_CLIP_VOCABULARY = pathlib.Path(__file__).parent / 'clip_vocabulary/bpe_simple_vocab_16e6.txt.gz'
_CLIP_MERGES = 48_894  # the file goes on; the model was trained with these alone
_CLIP_START, _CLIP_END = '<start_of_text>', '<end_of_text>'
_CLIP_WORDS = regex.compile(
  rf"{_CLIP_START}|{_CLIP_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
  regex.IGNORECASE,
)


class Tokenizer:
  """Token ids by a `tokenizer.json` of the `tokenizers` library.

  Clean-up, such as lower case, is the file's own. Whatever a text says, its ids hold the start and
  end tokens once.

  Attributes:
    length: L, the ids of one text.
    vocab_size: V; every id is below it.
    pad_id: 0.
    start_id: the first id of every text.
    end_id: the last id of every text before the padding.
  """

  pad_id = 0

  def __init__(self, path: str | pathlib.Path, length: int):
    """Reads the file.

    Args:
      path: a `tokenizer.json` with the special tokens `<pad>` (id 0), `<start>` and `<end>`.
      length: L, the ids of one text, start and end included.

    Raises:
      ValueError: if a special token is missing, or `length` has no room for one token of text.
    """
    bpe = tokenizers.Tokenizer.from_str(pathlib.Path(path).read_text(encoding='utf-8'))
    if bpe.token_to_id('<pad>') != 0 or None in map(bpe.token_to_id, ('<start>', '<end>')):
      raise ValueError(
        f'{path} has the ids {[bpe.token_to_id(t) for t in ("<pad>", "<start>", "<end>")]} for '
        '<pad>, <start>, <end>; train it with those special tokens, <pad> first so that its id is 0'
      )
    bpe.no_padding()
    bpe.no_truncation()
    bpe.encode_special_tokens = True  # a caption that says '<end>' says it in ordinary tokens
    self._set(bpe, length, '<start>', '<end>')

  def _set(self, bpe: tokenizers.Tokenizer, length: int, start: str, end: str) -> None:
    if length < 3:
      raise ValueError(f'length = {length} has no room for start, one token and end; use 3 or more')
    self._bpe = bpe
    self.length = length
    self.vocab_size = bpe.get_vocab_size()
    self.start_id = bpe.token_to_id(start)
    self.end_id = bpe.token_to_id(end)

  def _encode(self, texts: list[str]) -> list[tokenizers.Encoding]:
    return self._bpe.encode_batch(texts, add_special_tokens=False)

  def __call__(self, texts: Iterable[str]) -> np.ndarray:
    """Encodes texts; one that is too long loses its last tokens and keeps the end token.

    Args:
      texts: B strings.

    Returns:
      int32 [B, L]: start, the text's ids, end, then zeros.

    Raises:
      ValueError: if `texts` is one string, or holds something other than strings.
    """
    if isinstance(texts, str):
      raise ValueError(f'texts = {texts!r} is one string; give a list of strings, [{texts!r}]')
    texts = list(texts)
    for text in texts:
      if not isinstance(text, str):
        raise ValueError(f'texts holds {text!r}, a {type(text).__name__}; give strings')
    tokens = np.full([len(texts), self.length], self.pad_id, np.int32)
    for row, encoding in zip(tokens, self._encode(texts), strict=True):
      ids = [self.start_id, *encoding.ids[: self.length - 2], self.end_id]
      row[: len(ids)] = ids
    return tokens

  def decode(self, ids: Iterable[int]) -> str:
    """The text of one row of ids [L], up to its first end token, without special tokens."""
    ids = np.trim_zeros(np.asarray(ids, np.int64), 'b')
    ids = itertools.takewhile(lambda token: token != self.end_id, ids.tolist())
    return self._bpe.decode(list(ids), skip_special_tokens=True).strip()


class ClipTokenizer(Tokenizer):
  """Token ids by the vocabulary of OpenAI's CLIP [1], equal to open_clip's for any text.

  As there, a text that spells out `<start_of_text>` or `<end_of_text>` gets that token.

  References:
    [1] Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.

  >>> ClipTokenizer(length=8)(['a photo of a cat']).tolist()
  [[49406, 320, 1125, 539, 320, 2368, 49407, 0]]
  """

  def __init__(self, length: int = 77, vocabulary: str | pathlib.Path | None = None):
    """Reads the vocabulary.

    Args:
      length: L, the ids of one text, start and end included.
      vocabulary: path of `bpe_simple_vocab_16e6.txt.gz`; default: the copy in this package.

    Raises:
      ValueError: if the file is not that vocabulary, or `length` is below 3.
    """
    self._set(_clip_bpe(str(vocabulary or _CLIP_VOCABULARY)), length, _CLIP_START, _CLIP_END)

  def _encode(self, texts: list[str]) -> list[tokenizers.Encoding]:
    words = [_CLIP_WORDS.findall(_clip_clean(text)) for text in texts]
    return self._bpe.encode_batch(words, is_pretokenized=True, add_special_tokens=False)


def _clip_clean(text: str) -> str:
  text = html.unescape(html.unescape(ftfy.fix_text(text)))
  return ' '.join(text.split()).lower()


@functools.lru_cache(maxsize=1)
def _clip_bpe(path: str) -> tokenizers.Tokenizer:
  """CLIP's byte-pair encoder of words; ids count bytes, bytes that end a word, merges, specials."""
  try:
    with gzip.open(path, 'rt', encoding='utf-8') as lines:
      merges = [tuple(line.split()) for line in itertools.islice(lines, 1, 1 + _CLIP_MERGES)]
  except (gzip.BadGzipFile, EOFError, UnicodeDecodeError):
    merges = []
  if len(merges) != _CLIP_MERGES or any(len(merge) != 2 for merge in merges):
    raise ValueError(f"vocabulary = {path} is not CLIP's bpe_simple_vocab_16e6.txt.gz")
  # The printable bytes, each its own letter, come first; the others follow under borrowed letters.
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
  # 'Ġ' is the letter of the space byte.
  bpe.decoder = tokenizers.decoders.Sequence(
    [tokenizers.decoders.Replace('</w>', 'Ġ'), tokenizers.decoders.ByteLevel()]
  )
  return bpe


def open_tokenizer(name: str, length: int) -> Tokenizer:
  """Opens a tokenizer by name: 'emoji' and 'clip' are embedded; else the path of a tokenizer.json.

  Raises:
    ValueError: if it is neither.
  """
  if name == 'clip':
    return ClipTokenizer(length)
  path = emoji.TOKENIZER if name == 'emoji' else pathlib.Path(name)
  if not path.is_file():
    raise ValueError(
      f"config.data.tokenizer = {name!r} is no file; use 'emoji', 'clip' or a tokenizer.json"
    )
  return Tokenizer(path, length)
