import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contrastive_jax.evaluation.retrieval import recall


def expected_recall(scores, right, k):
  """Mean over all orders of the candidates, each sorted stably: ties at random."""
  N = scores.shape[1]
  hits = [
    right[q, np.array(order)[np.argsort(-scores[q, list(order)], kind='stable')][:k]].any()
    for q in range(len(scores))
    for order in itertools.permutations(range(N))
  ]
  return np.mean(hits)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
def test_recall_is_the_mean_over_all_orders_of_ties(seed, N, k):
  rng = np.random.default_rng(seed)
  candidates = rng.integers(-1, 2, (N, 2)).astype(np.float32)
  queries = rng.integers(-1, 2, (3, 2)).astype(np.float32)
  candidate_ids = rng.integers(0, 3, N)
  query_ids = rng.choice(candidate_ids, 3)
  found = recall(queries, candidates, query_ids.tolist(), candidate_ids.tolist(), [k])[k]
  right = query_ids[:, None] == candidate_ids
  assert found == pytest.approx(expected_recall(queries @ candidates.T, right, k), abs=1e-6)


def test_a_constant_model_scores_chance():
  ones = np.ones((50, 4), np.float32)
  assert recall(ones, ones, range(50), range(50), [1, 5]) == pytest.approx({1: 0.02, 5: 0.1})


def test_more_rows_than_a_block():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1500, 16)).astype(np.float32)
  y = x + rng.normal(size=x.shape).astype(np.float32)
  ranks = np.argsort(-(x @ y.T), axis=1)
  for k, value in recall(x, y, range(1500), range(1500), (1, 10)).items():
    assert value == pytest.approx((ranks[:, :k] == np.arange(1500)[:, None]).any(1).mean())


def test_a_query_without_an_answer_is_an_error():
  one = np.ones((1, 2), np.float32)
  with pytest.raises(ValueError, match="no right candidate, such as 'a'"):
    recall(one, one, ['a'], ['b'], [1])
