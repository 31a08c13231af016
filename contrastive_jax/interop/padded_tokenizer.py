"""Tokenizers from Hugging Face's files, with the template and the padding that these name."""

import html
import json
import pathlib
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ftfy
import numpy as np
import sentencepiece
import tokenizers

from contrastive_jax.interop import tensors
from contrastive_jax.interop.table import UnsupportedError

FAST, SLOW = 'tokenizer.json', ('spiece.model', 'tokenizer.model')
# Files that name the special tokens; the last one wins.
CONFIGS = ('special_tokens_map.json', 'tokenizer_config.json')
_PUNCTUATION = str.maketrans('', '', string.punctuation)


def _whitespace(text: str) -> str:
  return ' '.join(text.split())


def _unescaped(text: str) -> str:
  return html.unescape(html.unescape(ftfy.fix_text(text)))


# Cleaning by name, as in open_clip; 'siglip' is that of transformers' SiglipTokenizer.
CLEANS: dict[str, Callable[[str], str]] = {
  'none': lambda text: text,
  'whitespace': lambda text: _whitespace(_unescaped(text)),
  'lower': lambda text: _whitespace(_unescaped(text)).lower(),
  'canonicalize': lambda text: _whitespace(
    _unescaped(text).replace('_', ' ').translate(_PUNCTUATION).lower()
  ),
  'siglip': lambda text: _whitespace(text.lower().translate(_PUNCTUATION)),
}


class Words(NamedTuple):
  """A vocabulary: text to ids, with the template or without, and token to id.

  `specials` holds the ids of special tokens that the configs need not name.
  """

  encode: Callable[[str, bool], list[int]]
  id_of: Callable[[str], int | None]
  size: int
  specials: dict[str, int | None]


def find_clean(name: str) -> Callable[[str], str]:
  """Returns one of `CLEANS`; raises UnsupportedError for another name."""
  if name not in CLEANS:
    raise UnsupportedError(f'clean = {name!r} is not supported; use one of {[*CLEANS]}')
  return CLEANS[name]


def read_configs(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the entries of `CONFIGS`; raises UnsupportedError for padding on the left."""
  config: dict[str, Any] = {}
  for name in CONFIGS:
    config |= tensors.read_json(folder / name) if (folder / name).is_file() else {}
  for side in ('padding_side', 'truncation_side'):
    if config.get(side, 'right') != 'right':
      raise UnsupportedError(f'{CONFIGS[-1]}: {side} = {config[side]!r} is not supported')
  return config


def find_files(folder: pathlib.Path) -> bool:
  """Whether a folder has a tokenizer that `PaddedTokenizer` reads, and says how it pads."""
  has = lambda names: any((folder / name).is_file() for name in names)  # noqa: E731
  return has((FAST,)) or (has(SLOW) and has(CONFIGS))


class PaddedTokenizer:
  """Encodes texts as a Hugging Face tokenizer does, padded to a fixed length.

  The start and end tokens and the padding are those of the files: SigLIP's have no start token, and
  their padding has the id 1.

  Attributes:
    length: L, ids per text.
    vocab_size: V; every id is below it.
    pad_id: id of the padding.
  """

  def __init__(
    self, folder: pathlib.Path, length: int, *, clean: str = 'none', strip_sep_token: bool = False
  ):
    """Reads tokenizer.json, or a SentencePiece model, and tokenizer_config.json.

    Args:
      folder: holds the files, as `save_pretrained` writes them.
      length: L, ids per text.
      clean: cleaning of the texts, one of `CLEANS`.
      strip_sep_token: whether to replace the separator by 0, as CLIPA does.

    Raises:
      ValueError: if a file is of another kind, or names no padding.
    """
    self.length, self._clean = length, find_clean(clean)
    config = read_configs(folder)
    path = next(folder / name for name in (FAST, *SLOW) if (folder / name).is_file())
    words = (read_fast if path.name == FAST else _read_slow)(path, length)

    def token(name):
      named = _content(config.get(name))
      found = words.id_of(named) if named else words.specials.get(name)
      if found is None:
        raise ValueError(f'{folder}/{CONFIGS[-1]} names no {name} that {path.name} has')
      return found

    self.vocab_size, self._words, self.pad_id = words.size, words, token('pad_token')
    self._separator = token('sep_token') if strip_sep_token else None
    # Gemma's and Llama's configs say which to add; SentencePiece models have no template.
    flags = {name: config.get(f'add_{name}_token') for name in ('bos', 'eos')}
    self._has_template = path.name == FAST and set(flags.values()) == {None}
    default = {'bos': False, 'eos': path.name != FAST}
    adds = {name: default[name] if flag is None else flag for name, flag in flags.items()}
    self._start, self._end = ([token(f'{name}_token')] if adds[name] else [] for name in adds)

  def __call__(self, texts: Iterable[str]) -> np.ndarray:
    """Encodes texts; a text that is too long is truncated before its end token.

    Args:
      texts: N strings.

    Returns:
      int32 [N, L].
    """
    texts = list(texts)
    tokens = np.full([len(texts), self.length], self.pad_id, np.int32)
    for row, text in enumerate(texts):
      ids = self._words.encode(self._clean(text), self._has_template)
      if not self._has_template:
        room = self.length - len(self._start) - len(self._end)
        ids = [*self._start, *ids[:room], *self._end]
      tokens[row, : len(ids)] = ids
    return tokens if self._separator is None else np.where(tokens == self._separator, 0, tokens)


def _content(token: str | Mapping[str, Any] | None) -> str:
  """A special token's text; older files have a dict."""
  return token.get('content', '') if isinstance(token, Mapping) else token or ''


def open_pieces(path: pathlib.Path) -> sentencepiece.SentencePieceProcessor:
  """Opens a SentencePiece model; raises ValueError if the file is none."""
  try:
    return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
  except RuntimeError as error:
    raise ValueError(f'{path} is no SentencePiece model: {error}') from error


def read_fast(path: pathlib.Path, length: int) -> Words:
  """Reads a tokenizer.json, which truncates to `length` with its template."""
  text = path.read_text(encoding='utf-8')
  try:
    words = tokenizers.Tokenizer.from_str(text)
  except Exception as error:  # the library raises nothing narrower
    raise ValueError(f'{path} is no tokenizer.json: {error}') from error
  padding = json.loads(text).get('padding') or {}
  words.no_padding()
  words.no_truncation()

  def encode(text, has_template):
    if has_template:
      words.enable_truncation(length)
    return words.encode(text, add_special_tokens=has_template).ids

  size = 1 + max(words.get_vocab().values())
  return Words(encode, words.token_to_id, size, {'pad_token': padding.get('pad_id')})


def _read_slow(path: pathlib.Path, length: int) -> Words:
  del length
  words = open_pieces(path)

  def id_of(piece):
    found = words.piece_to_id(piece)
    return found if words.id_to_piece(found) == piece else None

  specials = {'bos_token': words.bos_id(), 'eos_token': words.eos_id()}
  specials = {name: None if found < 0 else found for name, found in specials.items()}
  return Words(lambda text, _: words.encode(text), id_of, words.get_piece_size(), specials)
