"""Synonyms of a word, from a file or from WordNet."""

import functools
import pathlib
from collections.abc import Callable

from contrastive_jax.data import emoji
from contrastive_jax.data.text import wordnet

# Number of words whose synonyms in WordNet are cached.
_CACHED_WORDS = 2**16

# (word in lower case) -> its synonyms, in an order that is always the same.
Synonyms = Callable[[str], tuple[str, ...]]


@functools.lru_cache(4)
def open_synonyms(source: str) -> Synonyms:
  """Opens a source of synonyms.

  Args:
    source: 'wordnet'; 'emoji', words of the embedded captions; or the path of a file with a word
      and its synonyms per line, as in `couch: sofa, settee`. Lines that start with # are comments.

  Raises:
    ValueError: if WordNet is not installed, or the file is missing or does not parse.
  """
  if source == 'wordnet':
    return _of_wordnet()
  path = emoji.SYNONYMS if source == 'emoji' else pathlib.Path(source).expanduser()
  if not source or not path.is_file():
    raise ValueError(
      f'config.data.text_augmentation.synonyms_from = {source!r} is no file; use a file, '
      "'wordnet' or 'emoji'"
    )
  found: dict[str, tuple[str, ...]] = {}
  for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    if not line.strip() or line.startswith('#'):
      continue
    word, _, rest = line.lower().partition(':')
    synonyms = tuple(filter(None, map(str.strip, rest.split(','))))
    if not word.strip() or not synonyms:
      raise ValueError(f'{path}, line {number} is {line!r}; write it as word: synonym, synonym')
    found[word.strip()] = synonyms
  return lambda word: found.get(word, ())


def _of_wordnet() -> Synonyms:
  if (reader := wordnet.open_wordnet()) is None:
    raise ValueError(
      "config.data.text_augmentation.synonyms_from = 'wordnet' needs the data of WordNet; "
      f'{wordnet.INSTALL}, or use a file'
    )

  @functools.lru_cache(_CACHED_WORDS)
  def synonyms(word: str) -> tuple[str, ...]:
    names = {name for synset in reader.synsets(word) for name in synset.lemma_names()}
    return tuple(sorted({name.replace('_', ' ').lower() for name in names} - {word}))

  return synonyms
