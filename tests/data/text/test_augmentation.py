"""Laws of edited texts: what an edit may change, how often it does, and that a key repeats it."""

import pickle

import numpy as np
import pytest

from contrastive_jax.data import TextAugmentation
from contrastive_jax.data.text.augmentation import STOP_WORDS, check_text_augmentation
from contrastive_jax.data.text.synonyms import open_synonyms

TEXT = 'The woman: walking to a taxi, with a red umbrella'
PAPER = {'drop_stop_words': 0.8, 'synonyms': 0.4, 'swap': 0.4, 'delete': 0.2}


def edited(count=300, text=TEXT, **options):
  """Many edits of a text that is not the first."""
  augment = TextAugmentation(synonyms_from='emoji', **options)
  return [augment([text, text], np.random.default_rng(seed))[1] for seed in range(count)]


def test_stop_words_are_dropped_as_often_as_asked():
  found = edited(drop_stop_words=0.8)
  without = 'woman: walking taxi, red umbrella'
  assert set(found) == {TEXT, without}
  assert np.mean([text == without for text in found]) == pytest.approx(0.8, abs=0.07)
  # A text of stop words alone stays.
  assert set(edited(text='Up and Down!', drop_stop_words=1.0)) == {'Up and Down!'}


def test_a_word_becomes_one_of_its_synonyms_and_keeps_its_punctuation():
  find = open_synonyms('emoji')
  # The words of the text that have some, which are no stop words.
  expected = {
    TEXT.replace(word, synonym)
    for word in ('walking', 'taxi', 'umbrella')
    for synonym in find(word)
  }
  assert set(edited(synonyms=1.0)) == expected
  assert set(edited(text='taxi, Taxi', synonyms=1.0)) == {'cab, cab'}
  assert set(edited(text='xylem', synonyms=1.0)) == {'xylem'}


def test_swaps_and_deletions_keep_words():
  for text in edited(swap=1.0):
    words = text.split()
    assert sorted(words) == sorted(TEXT.split())
    assert sum(a != b for a, b in zip(words, TEXT.split(), strict=True)) in (0, 2)
  deleted = [text.split() for text in edited(1000, delete=1.0)]
  for words in deleted:
    left = iter(TEXT.split())
    assert words and all(word in left for word in words)  # in their order
  assert np.mean([len(words) for words in deleted]) == pytest.approx(0.9 * 10, abs=0.15)
  assert set(edited(text='one', swap=0.5, delete=0.5)) == {'one'}


def test_a_text_has_at_most_one_edit():
  found = edited(1000, text='red taxi', synonyms=0.4, swap=0.4)
  shares = {text: found.count(text) / 1000 for text in set(found)}
  expected = {'red taxi': 0.2, 'red cab': 0.4, 'taxi red': 0.4}
  assert shares == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
  ('first', 'expected'),
  [('none', {TEXT}), ('stop_words', {'woman: walking taxi, red umbrella'}), ('all', None)],
)
def test_the_first_text_is_edited_as_far_as_asked(first, expected):
  options = PAPER | {'drop_stop_words': 1.0, 'synonyms_from': 'emoji'}
  augment = TextAugmentation(**options, first=first)
  found = [augment([TEXT] * 3, np.random.default_rng(seed)) for seed in range(50)]
  firsts = {texts[0] for texts in found}
  assert firsts == expected if expected else len(firsts) > 5
  assert len({text for texts in found for text in texts[1:]}) > 5


def test_a_key_repeats_an_edit_in_another_process_too():
  augment = TextAugmentation(**PAPER, synonyms_from='emoji')
  copy = pickle.loads(pickle.dumps(augment))
  for seed in range(20):
    one, other = (edit([TEXT] * 3, np.random.default_rng(seed)) for edit in (augment, copy))
    assert one == other
  assert edited(20, **PAPER) != [TEXT] * 20


def test_without_probabilities_nothing_is_drawn():
  augment = TextAugmentation()
  assert not augment.changes
  assert augment([TEXT], None) == [TEXT]


def test_stop_words_are_words():
  assert {'the', 'of', "don't"} < STOP_WORDS and '' not in STOP_WORDS


@pytest.mark.parametrize(
  ('fields', 'texts', 'message'),
  [
    ({'swop': 0.1}, 3, r"text_augmentation\.swop is unknown; use some of \['drop_stop_words'"),
    ({'swap': 0.6, 'delete': 0.6}, 3, r'synonyms, swap and delete add up to 1\.2, and a text has'),
    (
      {'swap': 0.6},
      1,
      r"first = 'none' leaves .* and config\.texts = 1; use config\.texts = 3, or",
    ),
  ],
)
def test_what_cannot_work_is_told(fields, texts, message):
  with pytest.raises(ValueError, match=message):
    check_text_augmentation(fields, texts)
  check_text_augmentation(PAPER, 3)
  check_text_augmentation(PAPER | {'first': 'all'}, 1)
  check_text_augmentation({}, 1)
