"""The tokenizers of RoBERTa, XLM-RoBERTa and NLLB, whose ids are those of fairseq."""

import pathlib

import tokenizers

from contrastive_jax.interop.padded_tokenizer import (
  FAST,
  PaddedTokenizer,
  Words,
  find_clean,
  open_pieces,
  read_configs,
  read_fast,
)
from contrastive_jax.interop.table import UnsupportedError

PIECES, BYTES = 'sentencepiece.bpe.model', ('vocab.json', 'merges.txt')
SPECIALS = ('<s>', '<pad>', '</s>', '<unk>')  # in the order of their ids


def find_files(folder: pathlib.Path) -> bool:
  """Whether a folder has a tokenizer that `FairseqTokenizer` reads."""
  has = lambda *names: all((folder / name).is_file() for name in names)  # noqa: E731
  return has(FAST) or has(PIECES) or has(*BYTES)


class FairseqTokenizer(PaddedTokenizer):
  """Encodes texts as `<s> text </s>`, or with a language in the place of `<s>`, padded with 1.

  Attributes: see `PaddedTokenizer`.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    length: int,
    *,
    clean: str = 'whitespace',
    has_language: bool = False,
    language: str | None = None,
  ):
    """Reads tokenizer.json, sentencepiece.bpe.model, or vocab.json and merges.txt.

    Args:
      folder: holds the files.
      length: L, ids per text.
      clean: cleaning of the texts, one of `padded_tokenizer.CLEANS`.
      has_language: whether texts start with the token of their language, as NLLB's.
      language: this token; default that of tokenizer_config.json, or 'eng_Latn'.

    Raises:
      ValueError: if a file is of another kind, or its special tokens have other ids.
    """
    config = read_configs(folder)
    if config.get('legacy_behaviour'):
      raise UnsupportedError('tokenizer_config.json: legacy_behaviour = True is not supported')
    readers = {FAST: read_fast, PIECES: _read_pieces, BYTES[0]: _read_bytes}
    path = next(folder / name for name in readers if (folder / name).is_file())
    words = readers[path.name](path, length)
    if [*map(words.id_of, SPECIALS)] != [0, 1, 2, 3]:
      raise ValueError(f'{path} does not have the tokens {SPECIALS} for its first ids')
    start = (language or config.get('src_lang') or 'eng_Latn') if has_language else SPECIALS[0]
    if words.id_of(start) is None:
      raise ValueError(f'{path} has no token {start!r}; give a {FAST} with the languages')
    self.length, self.vocab_size, self.pad_id = length, words.size, 1
    self._words, self._clean = words, find_clean(clean)
    self._has_template, self._separator = False, None
    self._start, self._end = [words.id_of(start)], [2]


def _read_pieces(path: pathlib.Path, length: int) -> Words:
  """XLM-RoBERTa's SentencePiece model: ids are shifted by 1, and `<mask>` is the last one."""
  del length
  words = open_pieces(path)
  if (words.unk_id(), words.bos_id(), words.eos_id()) != (0, 1, 2):
    raise ValueError(f'{path} is not of XLM-RoBERTa: its first pieces are no <unk>, <s>, </s>')
  unknown = SPECIALS.index('<unk>')

  def encode(text, _):
    return [piece + 1 if piece else unknown for piece in words.encode(text)]

  return Words(encode, dict(zip(SPECIALS, range(4), strict=True)).get, len(words) + 2, {})


def _read_bytes(path: pathlib.Path, length: int) -> Words:
  """RoBERTa's byte-level BPE."""
  del length
  merges = path.with_name(BYTES[1])
  try:
    model = tokenizers.models.BPE.from_file(str(path), str(merges))
  except Exception as error:  # the library raises nothing narrower
    raise ValueError(f'{path} and {merges.name} are no BPE: {error}') from error
  words = tokenizers.Tokenizer(model)
  prefix = read_configs(path.parent).get('add_prefix_space', False)
  words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
  known = [token for token in SPECIALS if words.token_to_id(token) is not None]
  words.add_special_tokens([*known, tokenizers.AddedToken('<mask>', lstrip=True, special=True)])
  encode = lambda text, _: words.encode(text, add_special_tokens=False).ids  # noqa: E731
  return Words(encode, words.token_to_id, words.get_vocab_size(), {})
