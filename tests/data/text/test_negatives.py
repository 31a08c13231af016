"""Laws of wrong captions: one word is replaced, or two are exchanged."""

import functools
import re

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data.text import negatives
from contrastive_jax.data.text.negatives import RULES, hard_negatives


@functools.cache
def captions():
  source = data.open_source('emoji', 'heldout_composition')
  own = sorted({source.fields(row)['caption'] for row in range(0, len(source), 5)})
  return (
    *own,
    'women holding hands: dark skin tone, light skin tone',
    'Left arrow curving right',
    'keycap: 10',
    'two-thirty',
    'A man, a woman and a MAN',
  )


def words(text):
  return re.findall(r'[\w-]+', text)


def made(rule, caption, seed=0):
  return [*RULES[rule](caption, np.random.default_rng(seed))]


@pytest.mark.parametrize('rule', ['exchange', 'order'])
def test_two_words_are_exchanged(rule):
  texts = [(caption, wrong) for caption in captions() for wrong in made(rule, caption)]
  assert texts
  for caption, wrong in texts:
    assert wrong != caption and sorted(words(wrong)) == sorted(words(caption))
    assert re.sub(r'\w+', '', wrong) == re.sub(r'\w+', '', caption) or '-' in caption


@pytest.mark.parametrize('rule', ['tones', 'roles', 'colors', 'numbers', 'directions'])
def test_one_word_is_replaced(rule):
  more = ('red apple', 'merman', 'OK')
  texts = [(text, wrong) for text in (*captions(), *more) for wrong in made(rule, text)]
  assert texts
  for caption, wrong in texts:
    one, other = words(caption), words(wrong)
    assert sum(a != b for a, b in zip(one, other, strict=True)) == 1


def test_words_keep_their_kind_and_case():
  assert set(made('directions', 'Left arrow')) == {'Right arrow'}
  assert set(made('numbers', 'two-thirty')) >= {'one-thirty', 'twelve-thirty'}
  assert 'keycap: 2' in made('numbers', 'keycap: 10') and len(made('numbers', 'keycap: 10')) == 10
  assert len(made('tones', 'judge: medium-dark skin tone')) == 4
  assert not made('tones', 'a light red box') and not made('directions', 'rights')
  assert not made('roles', 'gırl')  # no letter of another alphabet
  assert made('exchange', 'couple: dark skin tone, dark skin tone') == []


def test_negatives_are_different_and_rules_take_turns():
  for caption in captions():
    found = hard_negatives(caption, (), 4, np.random.default_rng(1))
    assert len({caption, *found}) == 1 + len(found) <= 5
    assert found == hard_negatives(caption, (), 4, np.random.default_rng(1))
    rules = [rule for rule in RULES if made(rule, caption)]
    assert len(found) == 4 or len(found) == len({t for r in rules for t in made(r, caption)})
    for rule, wrong in zip(rules, found, strict=False):
      assert wrong in made(rule, caption)
  orders = {tuple(hard_negatives('a b c d e', (), 2, np.random.default_rng(s))) for s in range(9)}
  assert len(orders) > 1


def test_one_word_has_no_negative():
  assert hard_negatives('apple', (), 3, np.random.default_rng(0)) == []
  assert hard_negatives('the apple', ('order',), 3, np.random.default_rng(0)) == []


def test_unknown_rules_are_named():
  with pytest.raises(ValueError, match=r"negative_rules has \['tone'\]; use some of .*'tones'"):
    negatives.check_rules(('tone', 'order'))
