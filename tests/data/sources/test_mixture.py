import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax import data
from contrastive_jax.data.sources import Source
from contrastive_jax.data.sources.mixture import Mixture, parse_mixture


def sources(*lengths):
  return [
    Source([{'caption': f'{name} {i}'} for i in range(length)])
    for name, length in zip('abcd', lengths, strict=False)
  ]


MIXTURES = st.lists(st.tuples(st.integers(1, 40), st.floats(0.1, 10)), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(MIXTURES)
def test_shares_hold_and_every_example_comes(parts):
  lengths, weights = zip(*parts, strict=True)
  mixture = Mixture(sources(*lengths), weights)
  captions = [mixture[i]['caption'] for i in range(len(mixture))]
  assert set(captions) == {
    f'{n} {i}' for n, k in zip('abcd', lengths, strict=False) for i in range(k)
  }
  counts = collections.Counter(caption[0] for caption in captions)
  for name, weight in zip('abcd', weights, strict=False):
    share = weight / sum(weights) * len(mixture)
    assert abs(counts[name] - share) <= len(weights) + 0.01 * share
  # And it ends soon after all have come.
  needed = 1 + max(captions.index(caption) for caption in set(captions))
  assert len(mixture) - needed <= 2 * len(weights) * sum(weights) / min(weights) + 1


@given(MIXTURES)
@settings(max_examples=10, deadline=None)
def test_an_id_names_one_example(parts):
  lengths, weights = zip(*parts, strict=True)
  mixture = Mixture(sources(*lengths), weights)
  names = collections.defaultdict(set)
  for i in range(len(mixture)):
    names[mixture[i]['id']].add(mixture[i]['caption'])
  assert sorted(names) == list(range(sum(lengths))) == list(range(mixture.rows))
  assert all(len(captions) == 1 for captions in names.values())


def test_a_mixture_trains_and_resumes(examples, write):
  name = f'{write("webdataset", examples)}*3+tfds:emoji:heldout_style*1'
  mixed = data.open_source(name, 'train[group!=flags]')
  options = {
    'batch_size': 8,
    'image_size': 8,
    'captions': {'caption': 1.0},
    'crop': (0.5, 1.0),
    'seed': 1,
  }
  tokenize = lambda texts: np.zeros([len(texts), 2], np.int32)  # noqa: E731
  straight, _ = data.training_batches(mixed, tokenize, **options)
  batches = [next(straight) for _ in range(20)]
  ours = np.mean(np.concatenate([batch['id'] for batch in batches]) < len(examples))
  assert 0.6 < ours < 0.9
  resumed, _ = data.training_batches(
    data.open_source(name, 'train[group!=flags]'), tokenize, **options
  )
  for _ in range(7):
    next(resumed)
  again, _ = data.training_batches(mixed, tokenize, **options)
  again.set_state(resumed.get_state())
  for field, array in next(again).items():
    np.testing.assert_array_equal(array, batches[7][field])


def test_names_of_mixtures():
  assert parse_mixture('webdataset:a/*.tar*.5+tfds:b/c:train*2+emoji*1.') == [
    ('webdataset:a/*.tar', 0.5),
    ('tfds:b/c:train', 2.0),
    ('emoji', 1.0),
  ]
  for name in ('emoji', 'webdataset:a/*.tar', 'jsonl:a+b.jsonl', 'csv:*'):
    assert parse_mixture(name) == []


@pytest.mark.parametrize('weights', [(0, 1), (1, -1), (1, float('nan'))])
def test_weights_are_above_zero(weights):
  with pytest.raises(ValueError, match='numbers above 0'):
    Mixture(sources(3, 3), weights)
