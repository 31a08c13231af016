"""Augments the texts of an example: stop words are dropped, words replaced, swapped or deleted."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrastive_jax.data.text.synonyms import open_synonyms

FIRST = ('none', 'stop_words', 'all')
_FIELD = 'config.data.text_augmentation'
_PROBABILITIES = ('drop_stop_words', 'synonyms', 'swap', 'delete')
_EDITS = _PROBABILITIES[1:]

# Function words of English, prepositions included, as in nltk's list.
STOP_WORDS = frozenset((pathlib.Path(__file__).parent / 'stop_words.txt').read_text().split())
# A word, and the punctuation around it.
_WORD = re.compile(r'(\W*)(.*?)(\W*)', re.DOTALL)
_DELETED = 0.1  # of the words, by EDA's deletion


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextAugmentation:
  """Edits the texts of an example: (texts, generator) -> texts.

  Stop words are dropped from a text with a probability of its own, and then at most one of three
  edits of EDA [2] takes place, as in CLIP-rocket [1]: a word that is no stop word is replaced,
  wherever it occurs, by one of its synonyms; two words change places; or each word is deleted with
  probability 0.1. At least one word remains. Probabilities of 0 make no random choice.

  Attributes:
    drop_stop_words: probability that a text loses its stop words, 0.8 in [1].
    synonyms: probability of a replacement, 0.4 in [1].
    swap: probability of a swap, 0.4 in [1].
    delete: probability of deletions, 0.2 in [1].
    synonyms_from: 'wordnet', 'emoji' or a file, see `open_synonyms`.
    first: what becomes of the first text, which is paired with the image: 'none', nothing;
      'stop_words', it may lose its stop words, as in [1]; or 'all', as of the others.

  References:
    [1] Fini et al., https://arxiv.org/abs/2305.08675; facebookresearch/clip-rocket, tokenizer.py.
    [2] Wei and Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text
      Classification Tasks, 2019, https://arxiv.org/abs/1901.11196; as in dsfsi/textaugment.

  >>> augment = TextAugmentation(drop_stop_words=1.0)
  >>> augment(['a man on the moon', 'a man on the moon'], np.random.default_rng(0))
  ['a man on the moon', 'man moon']
  """

  drop_stop_words: float = 0.0
  synonyms: float = 0.0
  swap: float = 0.0
  delete: float = 0.0
  synonyms_from: str = 'wordnet'
  first: str = 'none'

  @functools.cached_property
  def changes(self) -> bool:
    """Whether it changes anything."""
    return any(getattr(self, name) for name in _PROBABILITIES)

  def open(self) -> None:
    """Opens the synonyms, so that a mistake in the config is told before the first text.

    Raises:
      ValueError: see `open_synonyms`.
    """
    if self.synonyms:
      open_synonyms(self.synonyms_from)

  def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Edits the texts of an example, of which the first is paired with the image."""
    return [self._edit(text, rng, self.first if n == 0 else 'all') for n, text in enumerate(texts)]

  def _edit(self, text: str, rng: np.random.Generator, extent: str) -> str:
    if extent == 'none' or not self.changes:
      return text
    words = before = text.split()
    if self.drop_stop_words and rng.random() < self.drop_stop_words:
      words = [word for word in words if _core(word) not in STOP_WORDS] or words
    if extent == 'all':
      words = self._one_edit(words, rng)
    return text if words == before else ' '.join(words)

  def _one_edit(self, words: list[str], rng: np.random.Generator) -> list[str]:
    if not any(getattr(self, name) for name in _EDITS):
      return words
    drawn = rng.random()
    for name in _EDITS:
      if drawn < (probability := getattr(self, name)):
        return getattr(self, f'_{name}')(words, rng)
      drawn -= probability
    return words

  def _synonyms(self, words: list[str], rng: np.random.Generator) -> list[str]:
    find = open_synonyms(self.synonyms_from)
    # Sets have no order that lasts.
    cores = list(dict.fromkeys(map(_core, words)))
    for place in rng.permutation(len(cores)):
      core = cores[place]
      if core not in STOP_WORDS and (synonyms := find(core)):
        synonym = synonyms[rng.integers(len(synonyms))]
        return [_replaced(word, synonym) if _core(word) == core else word for word in words]
    return words

  def _swap(self, words: list[str], rng: np.random.Generator) -> list[str]:
    if len(words) < 2:
      return words
    i, j = rng.choice(len(words), 2, replace=False)
    words = [*words]
    words[i], words[j] = words[j], words[i]
    return words

  def _delete(self, words: list[str], rng: np.random.Generator) -> list[str]:
    if len(words) < 2:
      return words
    kept = rng.random(len(words)) >= _DELETED
    found = [word for word, keep in zip(words, kept, strict=True) if keep]
    return found or [words[rng.integers(len(words))]]


def check_text_augmentation(fields: Mapping[str, Any], texts: int) -> None:
  """Checks `config.data.text_augmentation`.

  Args:
    fields: of `TextAugmentation`.
    texts: `config.texts`.

  Raises:
    ValueError: names the field, its value, and what would work.
  """
  known = [field.name for field in dataclasses.fields(TextAugmentation)]
  if unknown := sorted(set(fields) - set(known)):
    raise ValueError(f'{_FIELD}.{unknown[0]} is unknown; use some of {known}')
  augmentation = TextAugmentation(**fields)
  total = sum(getattr(augmentation, name) for name in _EDITS)
  if total > 1 + 1e-6:
    raise ValueError(
      f'{_FIELD}: synonyms, swap and delete add up to {total:g}, and a text has one edit; use '
      'probabilities that add up to 1 or less'
    )
  if augmentation.changes and texts == 1 and augmentation.first == 'none':
    raise ValueError(
      f"{_FIELD}.first = 'none' leaves the first text as it is, and config.texts = 1; use "
      "config.texts = 3, or first = 'all'"
    )


def _core(word: str) -> str:
  """A word in lower case, without the punctuation around it."""
  return _parts(word)[1].lower()


def _replaced(word: str, synonym: str) -> str:
  before, _, after = _parts(word)
  return f'{before}{synonym}{after}'


def _parts(word: str) -> tuple[str, str, str]:
  """The punctuation before a word, the word, and the punctuation after it."""
  match = _WORD.fullmatch(word.replace('’', "'"))
  assert match is not None
  return match[1], match[2], match[3]
