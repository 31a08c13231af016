import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contrastive_jax.evaluation.captioning import cider, meteor, score_captions, words

CAPTIONS = ['a red bird sits on a tree', 'two dogs play in the snow', 'grinning face', 'cat']
VOCABULARY = ['a', 'red', 'green', 'bird', 'dog', 'on', 'the', 'tree']
captions = st.lists(st.sampled_from(VOCABULARY), max_size=7).map(' '.join)


def test_perfect_captions():
  scores = score_captions(CAPTIONS, [[caption] for caption in CAPTIONS])
  assert scores['exact_match'] == 1
  assert scores['bleu_4'] == pytest.approx(1) and scores['rouge_l'] == pytest.approx(1)
  # Of four orders the third caption has two, the last one.
  assert scores['cider'] == pytest.approx(10 * (1 + 1 + 2 / 4 + 1 / 4) / 4)


def test_perfect_captions_of_one_word():
  scores = score_captions(['cat', 'dog'], [['cat'], ['dog']])
  assert scores['bleu_4'] == pytest.approx(1) and scores['rouge_l'] == 1


def test_wrong_captions():
  scores = score_captions(['cat', 'dog'], [['red bird'], ['green tree']])
  assert set(scores.values()) == {0.0}


def test_bleu_and_rouge_by_hand():
  # Of the 7 words of the candidate 6 are in the reference, of its pairs 3, of its triples 1, of its
  # quadruples none; so a second pair of 4 words that agree.
  candidates = ['the cat the cat sat on the', 'a dog runs here']
  references = [['the cat sat on a mat'], ['a dog runs here']]
  scores = score_captions(candidates, references)
  # Clipped counts: the, cat, sat, on; the cat, cat sat, sat on, on the (not in it); and so on.
  precisions = [(4 + 4) / 11, (3 + 3) / 9, (2 + 2) / 7, (1 + 1) / 5]
  assert scores['bleu_4'] == pytest.approx(math.prod(precisions) ** 0.25)
  # The longest common subsequence is 'the cat sat on': 4 of 7 and of 6.
  assert scores['rouge_l'] == pytest.approx((2 * (4 / 7) * (4 / 6) / (4 / 7 + 4 / 6) + 1) / 2)
  assert scores['exact_match'] == 0.5


def test_a_short_caption_pays_bleus_brevity_penalty():
  scores = score_captions(['a b c d'], [['a b c d e f']])
  assert scores['bleu_4'] == pytest.approx(math.exp(1 - 6 / 4))


def test_cider_by_hand():
  # Each of the pictures' words is in one of two pictures, and weighs log 2, but for 'a': 0.
  candidates, references = ['a b', 'a c'], [['a b'], ['a d']]
  # The first: cosine 1 for words and pairs. The second: nothing shared that weighs.
  assert cider(candidates, references) == pytest.approx(10 * (2 / 4) / 2)
  # 'b b b': min(3, 1)·1 / (3·1) for words, no shared pair; two words longer than 'b'.
  expected = 10 * math.exp(-(2**2) / 72) * (1 / 3) / 4 / 2
  assert cider(['b b b', 'x'], [['b'], ['a']]) == pytest.approx(expected)


def test_cider_equals_pycocoevalcaps():
  # Stored from pycocoevalcap 1.2, whose installation of 100 MB is not asked for.
  candidates = ['a red bird on the tree', 'the dog runs on green grass', 'grinning face', '']
  references = [
    ['a bird on a tree', 'the red bird sits on the tree'],
    ['a dog runs on grass', 'dog on green grass', 'the brown dog runs'],
    ['grinning face'],
    ['face with tears of joy'],
  ]
  assert cider(candidates, references) == pytest.approx(2.8850776580325146, abs=1e-9)


def test_the_best_reference_counts():
  scores = score_captions(['a red bird on a tree'], [['two dogs', 'a red bird on a tree']])
  assert scores['exact_match'] == 1 and scores['rouge_l'] == 1
  assert scores['bleu_4'] == pytest.approx(1)


@given(st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=3)), min_size=1))
def test_order_changes_nothing(pairs):
  shuffled = [(candidate, random.sample(own, len(own))) for candidate, own in pairs]
  random.shuffle(shuffled)
  scores = [score_captions(*zip(*given, strict=True)) for given in (pairs, shuffled)]
  assert scores[0] == pytest.approx(scores[1])
  assert all(0 <= scores[0][name] <= 1 + 1e-9 for name in ('exact_match', 'bleu_4', 'rouge_l'))
  assert 0 <= scores[0]['cider'] <= 10 + 1e-9


def test_an_empty_candidate_scores_nothing_and_breaks_nothing():
  scores = score_captions([''], [['a bird']])
  assert set(scores.values()) == {0.0}
  half = score_captions(['', CAPTIONS[0]], [['a bird'], [CAPTIONS[0]]])
  assert half['exact_match'] == 0.5 and half['rouge_l'] == 0.5 and 0 < half['bleu_4'] < 1


def test_capitals_spaces_and_punctuation():
  assert words('Flag: Côte  d’Ivoire!') == ['flag', 'côte', 'd’ivoire']
  scores = score_captions([' Man:  dark skin tone'], [['man: dark skin tone']])
  assert scores['exact_match'] == 1
  scores = score_captions(['man dark skin tone'], [['man: dark skin tone']])
  assert scores['exact_match'] == 0 and scores['bleu_4'] == pytest.approx(1)


@pytest.mark.parametrize(
  ('candidates', 'references', 'message'),
  [
    ([], [], '0 candidates and 0 lists'),
    (['a'], [['a'], ['b']], '1 candidates and 2 lists'),
    (['a', 'b'], [['a'], []], r'the references of candidate 1 are \[\]'),
    (['a'], ['a'], r"the references of candidate 0 are 'a'; give a list"),
  ],
)
def test_mistakes_are_named(candidates, references, message):
  for score in (score_captions, cider):
    with pytest.raises(ValueError, match=message):
      score(candidates, references)


def test_meteor_by_hand(wordnet):
  # Three matches in one chunk: a word, a synonym, a stem. Precision 3/3, recall 3/4.
  mean = (1 * 0.75) / (0.9 * 1 + 0.1 * 0.75)
  expected = (1 - 0.5 * (1 / 3) ** 3) * mean
  candidate, references = 'the car runs', ['the auto running fast', 'nothing']
  assert meteor([candidate], [references]) == pytest.approx(expected)
  assert score_captions([candidate], [references])['meteor'] == pytest.approx(expected)
  # Two chunks; no match; an empty caption.
  two = (1 - 0.5 * (2 / 2) ** 3) * 1
  candidates = ['runs car', 'bird', '']
  assert meteor(candidates, [['car runs'], ['dog'], ['dog']]) == pytest.approx(two / 3)


def test_meteor_needs_wordnet_and_is_left_out_without(tmp_path, monkeypatch):
  monkeypatch.setattr('nltk.data.path', [str(tmp_path)])
  assert 'meteor' not in score_captions(['cat'], [['cat']])
  with pytest.raises(ValueError, match=r'needs the data of WordNet; python -m nltk\.downloader'):
    meteor(['cat'], [['cat']])
