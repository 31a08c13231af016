"""Scores generated captions against one or several references each.

BLEU, ROUGE, METEOR and CIDEr compare lowercase words without punctuation, as COCO's evaluation
does. Its tokenizer needs Java; this one differs only in contractions.
"""

import collections
import math
import re
from collections.abc import Sequence

from sacrebleu.metrics import BLEU

from contrastive_jax.data.text.wordnet import INSTALL, nltk, open_wordnet

_ORDERS = range(1, 5)  # n-grams
_LENGTH_STD = 6.0  # words, in CIDEr-D's length penalty


def score_captions(
  candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Scores captions by exact match, BLEU, ROUGE, CIDEr and, where WordNet is installed, METEOR.

  Args:
    candidates: N captions.
    references: one or more references per caption.

  Returns:
    exact_match: share of captions equal to a reference, up to whitespace and case.
    bleu_4: corpus BLEU without smoothing [1], from 0 to 1; n-gram orders longer than every caption
      are left out.
    rouge_l: mean F1 of the longest common subsequence [2], from 0 to 1, with the best reference.
    cider: see `cider`.
    meteor: see `meteor`; left out without WordNet.

  Raises:
    ValueError: if there are no captions, or a caption has no reference.

  References:
    [1] Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, 2002.
    [2] Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004.
  """
  _check(candidates, references)
  max_references = max(map(len, references))
  # Reference streams for sacrebleu, which skips None.
  streams = [
    [' '.join(words(own[i])) if i < len(own) else None for own in references]
    for i in range(max_references)
  ]
  bleu = BLEU(tokenize='none', smooth_method='none', effective_order=True, force=True)
  rouge = _rouge()
  pairs = list(zip(candidates, references, strict=True))
  return {
    'exact_match': sum(is_right(c, own) for c, own in pairs) / len(pairs),
    'bleu_4': bleu.corpus_score([' '.join(words(c)) for c in candidates], streams).score / 100,
    'rouge_l': sum(rouge.score_multi(own, c)['rougeL'].fmeasure for c, own in pairs) / len(pairs),
    'cider': cider(candidates, references),
  } | ({} if open_wordnet() is None else {'meteor': meteor(candidates, references)})


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
  """CIDEr-D, from 0 to 10: TF-IDF weighted n-gram similarity [1].

      10 · meanₙ meanᵣ exp(−(|c| − |r|)² / 2·6²) · min(gₙ(c), gₙ(r)) · gₙ(r) / ‖gₙ(c)‖ ‖gₙ(r)‖,

  where gₙ counts each n-gram times log(N / number of the N images with it in a reference). With a
  single image all weights are 0, and so is the score. A caption of fewer than four words has no
  4-gram, and scores below 10 even if it is perfect.

  Args:
    candidates: N captions.
    references: one or more references per caption.

  Raises:
    ValueError: see `score_captions`.

  References:
    [1] Vedantam et al., CIDEr: Consensus-based Image Description Evaluation, 2015.

  >>> captions = ['a red bird on a tree', 'two dogs in the snow']
  >>> round(cider(captions, [[caption] for caption in captions]), 6)
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
      penalty = math.exp(-((length - other_length) ** 2) / (2 * _LENGTH_STD**2))
      total += penalty * sum(map(_similarity, vectors, others)) / len(own)
  return 10 * total / len(_ORDERS) / len(candidates)


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
  """Mean METEOR with the best reference, from 0 to 1, by nltk [1].

  Words match if they, their Porter stems, or a synonym in WordNet are equal. The parameters are
  those of 2007, α = 0.9, β = 3 and γ = 0.5; COCO's evaluation runs METEOR 1.5 in Java, which also
  weighs function words and matches paraphrases, so its scores differ.

  Args:
    candidates: N captions.
    references: one or more references per caption.

  Raises:
    ValueError: see `score_captions`, and if WordNet is not installed.

  References:
    [1] Lavie and Agarwal, METEOR: An Automatic Metric for MT Evaluation with High Levels of
      Correlation with Human Judgments, 2007.
  """
  _check(candidates, references)
  if (reader := open_wordnet()) is None:
    raise ValueError(f'METEOR needs the data of WordNet; {INSTALL}')
  score = nltk('translate.meteor_score').meteor_score
  pairs = zip(candidates, references, strict=True)
  scores = [score(list(map(words, own)), words(c), wordnet=reader) for c, own in pairs]
  return sum(scores) / len(scores)


def is_right(candidate: str, references: Sequence[str]) -> bool:
  """Whether a caption equals a reference, up to whitespace and case."""
  return _spelling(candidate) in map(_spelling, references)


def words(caption: str) -> list[str]:
  """Splits a caption into lowercase words without punctuation.

  >>> words("A dog's toy: well-made, red!")
  ['a', "dog's", 'toy', 'well-made', 'red']
  """
  return re.findall(r"\w+(?:['’-]\w+)*", caption.lower())


def _rouge():
  """Returns the scorer of rouge_score, which imports nltk."""
  nltk('data')
  from rouge_score import rouge_scorer

  return rouge_scorer.RougeScorer(['rougeL'], tokenizer=_Words())


class _Words:
  """`words` as a tokenizer of rouge_score."""

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


def _weighted(caption, frequency, images) -> tuple[list[dict], int]:
  """Returns the weighted n-grams of a caption, a dict per order, and its length in words."""
  vectors: list[dict] = [{} for _ in _ORDERS]
  grams = _grams(caption)
  for gram, count in grams.items():
    vectors[len(gram) - 1][gram] = count * math.log(images / max(1, frequency[gram]))
  return vectors, sum(count for gram, count in grams.items() if len(gram) == 1)


def _similarity(candidate: dict, reference: dict) -> float:
  norm = math.hypot(*candidate.values()) * math.hypot(*reference.values())
  shared = sum(min(candidate[g], reference[g]) * reference[g] for g in candidate.keys() & reference)
  return shared / norm if norm else 0.0
