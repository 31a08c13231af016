"""Wrong captions by rule: negatives that differ from a caption in one word, or in their order.

A rule is a function of a caption and a random generator that yields wrong captions in random order.
The idea is CompA's [1], whose negatives are written for sounds; the rules and words are ours.

References:
  [1] Ghosh et al., CompA: Addressing the Gap in Compositional Reasoning in Audio-Language Models,
    2024, https://arxiv.org/abs/2310.08753.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# Groups of words of which each may stand for another, by the rule that replaces them.
_GROUPS: dict[str, tuple[str, ...]] = {
  'tones': (
    'light skin tone|medium-light skin tone|medium skin tone|medium-dark skin tone|dark skin tone',
  ),
  'roles': (
    'man|woman|person',
    'men|women|people',
    'boy|girl|child',
    'merman|mermaid|merperson',
    'prince|princess',
  ),
  'colors': ('black|blue|brown|gray|green|grey|orange|pink|purple|red|white|yellow',),
  'numbers': (
    'one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve',
    '0|1|2|3|4|5|6|7|8|9|10',
  ),
  'directions': (
    'left|right',
    'leftwards|rightwards',
    'up|down',
    'upwards|downwards',
    'north|south|east|west',
  ),
}
# The kind and the group of each word.
_GROUP_OF = {
  word: (kind, group.split('|'))
  for kind, groups in _GROUPS.items()
  for group in groups
  for word in group.split('|')
}
# Matches any of these words, but for the 'light skin tone' in 'medium-light skin tone'.
_GROUPED = re.compile(rf'(?<![\w-])(?ai:{"|".join(_GROUP_OF)})(?!\w)')
_WORD = re.compile(r'\w[\w’\'-]*')
# Words that `order` leaves where they are.
_FUNCTION_WORD = re.compile(
  'an?|and|are|as|at|be|by|for|from|in|into|is|its?|no|not|of|off|on|or|over|that|the|their|this|to'
  '|under|with|without',
  re.IGNORECASE,
)


@functools.lru_cache
def _find(caption: str) -> list[tuple[re.Match[str], str, list[str]]]:
  """Returns the words in a caption that have a group, with its kind; all rules ask for the same."""
  return [(found, *_GROUP_OF[found[0].lower()]) for found in _GROUPED.finditer(caption)]


def replace(kind: str, caption: str, rng: np.random.Generator) -> Iterator[str]:
  """Yields captions in which another word of its group stands for one word.

  Args:
    kind: 'tones', 'roles', 'colors', 'numbers' or 'directions'.
    caption: text.
    rng: random generator.

  >>> sorted(replace('roles', 'woman judge', np.random.default_rng(0)))
  ['man judge', 'person judge']
  """
  edits = [
    (found, word)
    for found, own, group in _find(caption)
    for word in group
    if own == kind and word != found[0].lower()
  ]
  for found, word in _shuffled(edits, rng):
    if found[0][0].isupper():
      word = word.capitalize()
    yield caption[: found.start()] + word + caption[found.end() :]


def exchange(caption: str, rng: np.random.Generator) -> Iterator[str]:
  """Yields captions in which two different words of a group are exchanged.

  >>> next(exchange('couple: dark skin tone, light skin tone', np.random.default_rng(0)))
  'couple: light skin tone, dark skin tone'
  """
  pairs = itertools.combinations(_find(caption), 2)
  alike = [(one, other) for (one, _, group), (other, _, own) in pairs if group == own]
  return _exchanged(caption, alike, rng)


def order(caption: str, rng: np.random.Generator) -> Iterator[str]:
  """Yields captions in which two different content words are exchanged.

  >>> next(order('a cat on the mat', np.random.default_rng(0)))
  'a mat on the cat'
  """
  words = (word for word in _WORD.finditer(caption) if not _FUNCTION_WORD.fullmatch(word[0]))
  return _exchanged(caption, [*itertools.combinations(words, 2)], rng)


def _exchanged(caption: str, pairs: Sequence[tuple[re.Match[str], ...]], rng) -> Iterator[str]:
  for one, other in _shuffled(pairs, rng):
    if one[0].lower() != other[0].lower():
      between = caption[one.end() : other.start()]
      yield caption[: one.start()] + other[0] + between + one[0] + caption[other.end() :]


def _shuffled(items: Sequence[Any], rng: np.random.Generator) -> Iterator[Any]:
  # A permutation takes longer than a rule that does not apply.
  return (items[number] for number in (rng.permutation(len(items)) if items else ()))


# Rules by name, as `config.data.negative_rules` has them.
RULES: dict[str, Callable[[str, np.random.Generator], Iterator[str]]] = {
  'exchange': exchange,
  **{kind: functools.partial(replace, kind) for kind in _GROUPS},
  'order': order,
}


def check_rules(rules: Sequence[str]) -> None:
  """Raises ValueError if a rule is unknown."""
  if unknown := [rule for rule in rules if rule not in RULES]:
    raise ValueError(f'config.data.negative_rules has {unknown}; use some of {tuple(RULES)}')


def hard_negatives(
  caption: str, rules: Sequence[str], count: int, rng: np.random.Generator
) -> list[str]:
  """Returns up to K different wrong captions: one of each rule that applies, then a second, ….

  Args:
    caption: text.
    rules: names in `RULES`, in their order; none for all.
    count: K.
    rng: random generator.

  >>> hard_negatives('red apple', ('colors', 'order'), 2, np.random.default_rng(0))
  ['green apple', 'apple red']
  >>> hard_negatives('apple', ('colors', 'order'), 2, np.random.default_rng(0))
  []
  """
  found: list[str] = []
  turns = itertools.zip_longest(*(RULES[rule](caption, rng) for rule in rules or RULES))
  for wrong in itertools.chain.from_iterable(turns):
    if len(found) == count:
      break
    if wrong not in (None, caption, *found):
      found.append(wrong)
  return found
