"""Scores of generated captions against one or several references each.

BLEU, ROUGE and CIDEr see words: lower case, without punctuation, as COCO's evaluation does. Its own
tokenizer needs Java; this one differs from it in contractions alone.
"""

import collections
import math
import os
import re
import tempfile
from collections.abc import Sequence

from sacrebleu.metrics import BLEU

_ORDERS = range(1, 5)  # n-grams
_LENGTH_DEVIATION = 6.0  # of CIDEr-D's penalty, words


def score_captions(
  candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Scores captions by the measures of the field.

  Args:
    candidates: N captions.
    references: the right captions of each.

  Returns:
    exact_match: the share of captions equal to a reference, but for spaces and capitals.
    bleu_4: corpus BLEU without smoothing [1], from 0 to 1; orders that no caption is long enough
      for are left out.
    rouge_l: mean F1 by the longest common subsequence [2], from 0 to 1, the best reference's.
    cider: see `cider`.

  Raises:
    ValueError: if there are no captions, or one has no reference.

  References:
    [1] Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, 2002.
    [2] Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004.
  """
  _check(candidates, references)
  most = max(map(len, references))
  # One stream of references after the other; sacrebleu passes over None.
  streams = [
    [' '.join(words(own[i])) if i < len(own) else None for own in references] for i in range(most)
  ]
  bleu = BLEU(tokenize='none', smooth_method='none', effective_order=True, force=True)
  rouge = _rouge()
  pairs = list(zip(candidates, references, strict=True))
  return {
    'exact_match': sum(is_right(c, own) for c, own in pairs) / len(pairs),
    'bleu_4': bleu.corpus_score([' '.join(words(c)) for c in candidates], streams).score / 100,
    'rouge_l': sum(rouge.score_multi(own, c)['rougeL'].fmeasure for c, own in pairs) / len(pairs),
    'cider': cider(candidates, references),
  }


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
  """CIDEr-D, from 0 to 10: agreement in n-grams, the rarer the weightier [1].

      10 · meanₙ meanᵣ exp(−(|c| − |r|)² / 2·6²) · min(gₙ(c), gₙ(r)) · gₙ(r) / ‖gₙ(c)‖ ‖gₙ(r)‖,

  where gₙ counts each n-gram times log(N / number of the N pictures that have it in a reference).
  No word is rare in a single picture, which scores 0. A caption of fewer than four words has no
  4-gram, and stays below 10 if it is perfect.

  Args:
    candidates: N captions.
    references: the right captions of each.

  Raises:
    ValueError: as `score_captions`.

  References:
    [1] Vedantam et al., CIDEr: Consensus-based Image Description Evaluation, 2015.

  >>> pictures = ['a red bird on a tree', 'two dogs in the snow']
  >>> round(cider(pictures, [[caption] for caption in pictures]), 6)
  10.0
  """
  _check(candidates, references)
  frequency = collections.Counter(
    gram for own in references for gram in set().union(*map(_grams, own))
  )
  total = 0.0
  for candidate, own in zip(candidates, references, strict=True):
    vectors, length = _weighted(candidate, frequency, len(candidates))
    for reference in own:
      others, other_length = _weighted(reference, frequency, len(candidates))
      penalty = math.exp(-((length - other_length) ** 2) / (2 * _LENGTH_DEVIATION**2))
      total += penalty * sum(map(_similarity, vectors, others)) / len(own)
  return 10 * total / len(_ORDERS) / len(candidates)


def is_right(candidate: str, references: Sequence[str]) -> bool:
  """Whether a caption equals one of the right ones, but for spaces and capitals."""
  return _spelling(candidate) in map(_spelling, references)


def words(caption: str) -> list[str]:
  """The words of a caption, in lower case and without punctuation.

  >>> words("A dog's toy: well-made, red!")
  ['a', "dog's", 'toy', 'well-made', 'red']
  """
  return re.findall(r"\w+(?:['’-]\w+)*", caption.lower())


def _rouge():
  """The scorer of rouge_score, imported where captions are scored."""
  if os.path.expanduser('~') == '~':
    # Its import of nltk fails where there is neither a home folder nor this one.
    os.environ.setdefault('NLTK_DATA', tempfile.gettempdir())
  from rouge_score import rouge_scorer

  return rouge_scorer.RougeScorer(['rougeL'], tokenizer=_Words())


class _Words:
  """The tokenizer of `words`, as rouge_score takes one."""

  def tokenize(self, text):
    return words(text)


def _check(candidates, references) -> None:
  if len(candidates) != len(references) or not candidates:
    raise ValueError(
      f'{len(candidates)} candidates and {len(references)} lists of references; '
      'give one list for each, and at least one'
    )
  for number, own in enumerate(references):
    if isinstance(own, str) or not own:
      raise ValueError(
        f'the references of candidate {number} are {own!r}; give a list of one or more'
      )


def _spelling(caption: str) -> str:
  return ' '.join(caption.lower().split())


def _grams(caption: str) -> collections.Counter:
  found = words(caption)
  return collections.Counter(
    tuple(found[start : start + n]) for n in _ORDERS for start in range(len(found) - n + 1)
  )


def _weighted(caption, frequency, pictures) -> tuple[list[dict], int]:
  """The weighted n-grams of a caption, a dict an order, and its length in words."""
  vectors: list[dict] = [{} for _ in _ORDERS]
  grams = _grams(caption)
  for gram, count in grams.items():
    vectors[len(gram) - 1][gram] = count * math.log(pictures / max(1, frequency[gram]))
  return vectors, sum(count for gram, count in grams.items() if len(gram) == 1)


def _similarity(candidate: dict, reference: dict) -> float:
  norm = math.hypot(*candidate.values()) * math.hypot(*reference.values())
  shared = sum(min(candidate[g], reference[g]) * reference[g] for g in candidate.keys() & reference)
  return shared / norm if norm else 0.0
