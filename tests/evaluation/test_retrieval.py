import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax.evaluation.retrieval import (
  _chances,
  _ranker,
  hits,
  hits_both_ways,
  languages,
  recall,
  retrieve,
)
from contrastive_jax.sharding.mesh import batch_sharding, make_mesh
from tests.doubles import slow_but


def expected_recall(scores, right, k):
  """Mean over all orders of the candidates, each sorted stably: ties at random."""
  N = scores.shape[1]
  hits = [
    right[q, np.array(order)[np.argsort(-scores[q, list(order)], kind='stable')][:k]].any()
    for q in range(len(scores))
    for order in itertools.permutations(range(N))
  ]
  return np.mean(hits)


@settings(deadline=None)
# Each number of candidates compiles a program, and 5 have 120 orders.
@given(st.integers(0, 10_000), st.sampled_from([1, 4]), st.integers(1, 4), st.sampled_from([1, 8]))
def test_recall_is_the_mean_over_all_orders_of_ties(seed, N, k, devices):
  rng = np.random.default_rng(seed)
  candidates = rng.integers(-1, 2, (N, 2)).astype(np.float32)
  queries = rng.integers(-1, 2, (3, 2)).astype(np.float32)
  candidate_ids = rng.integers(0, 3, N)
  query_ids = rng.choice(candidate_ids, 3)
  mesh = make_mesh('data:-1', jax.devices()[:devices])
  ids = query_ids.tolist(), candidate_ids.tolist()
  found = recall(queries, candidates, *ids, [k], mesh=mesh)[k]
  right = query_ids[:, None] == candidate_ids
  assert found == pytest.approx(expected_recall(queries @ candidates.T, right, k), abs=1e-6)


def dense_hits(queries, candidates, query_ids, candidate_ids, k):
  """Counts the candidates above each query's best correct one in the whole matrix of scores."""
  scores = queries @ candidates.T
  right = np.array(query_ids)[:, None] == np.array(candidate_ids)
  number = right & ~np.isnan(scores)
  best = np.max(scores, axis=1, keepdims=True, where=number, initial=-np.inf)
  above, tied = ~(scores <= best), scores == best
  above, tied, right = (counted.sum(1) for counted in (above, tied & ~right, tied & right))
  return _chances(k - above, tied, right)


def same_hits(x, y, x_ids, y_ids, devices):
  mesh, ks = make_mesh('data:-1', jax.devices()[:devices]), (1, 2, 5, 10)
  of_x, of_y = hits_both_ways(x, y, x_ids, y_ids, ks, mesh=mesh)
  for k in ks:
    np.testing.assert_array_equal(of_x[k], dense_hits(x, y, x_ids, y_ids, k))
    np.testing.assert_array_equal(of_y[k], dense_hits(y, x, y_ids, x_ids, k))
  assert hits(x, y, x_ids, y_ids, ks, mesh=mesh).keys() == of_x.keys()


@pytest.mark.parametrize(
  ('texts_per_image', 'devices'), slow_but(itertools.product((1, 3), (1, 8)), (1, 1), (3, 8))
)
def test_both_ways_equal_the_dense_counts(texts_per_image, devices):
  random = np.random.default_rng(0)
  # Small integers: scores are exact, and many tie.
  x = random.integers(-2, 3, (601, 6)).astype(np.float32)
  y = random.integers(-2, 3, (601 * texts_per_image, 6)).astype(np.float32)
  x[17], y[29] = np.nan, np.nan
  ids = [f'image {row}' for row in random.permutation(601)]
  same_hits(x, y, ids, ids * texts_per_image, devices)
  classes = random.integers(0, 40, 601).tolist()  # many positives on both sides
  same_hits(x, y, classes, classes * texts_per_image, devices)


def test_a_constant_model_scores_chance():
  ones = np.ones((50, 4), np.float32)
  assert recall(ones, ones, range(50), range(50), [1, 5]) == pytest.approx({1: 0.02, 5: 0.1})


def test_a_score_that_is_no_number_counts_as_above():
  eye, ids = np.eye(6, dtype=np.float32), range(6)
  broken = eye.copy()
  broken[0] = np.nan
  assert recall(np.nan * eye, eye, ids, ids, [1, 5]) == {1: 0, 5: 0}
  assert recall(broken, eye, ids, ids, [1]) == pytest.approx({1: 5 / 6})
  assert recall(eye, broken, ids, ids, [1, 2]) == pytest.approx({1: 0, 2: 5 / 6})


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


@pytest.mark.parametrize('devices', [1, 8])
def test_equal_candidates_tie_wherever_they_stand(devices):
  random = np.random.default_rng(0)
  x = random.normal(size=(33, 19)).astype(np.float32)
  copies = np.repeat(x, 7, axis=0)  # of which the first alone is right
  ids = [row if copy == 0 else -1 for row in range(33) for copy in range(7)]
  mesh = make_mesh('data:-1', jax.devices()[:devices])
  found = recall(x, copies, range(33), ids, [1, 5, 10], mesh=mesh)
  unit = x / np.linalg.norm(x, axis=1, keepdims=True)
  assert found[1] <= 1 / 7 + 1e-6
  found = recall(unit, unit.repeat(7, axis=0), range(33), ids, [1, 5, 10], mesh=mesh)
  assert found == pytest.approx({1: 1 / 7, 5: 5 / 7, 10: 1})


@pytest.mark.parametrize('devices', [1, 8])
def test_a_hundred_thousand_by_a_hundred_thousand_need_less_than_a_gigabyte(devices):
  N, D = 100_000, 512
  mesh = make_mesh('data:-1', jax.devices()[:devices])
  vectors, ids = jax.ShapeDtypeStruct((N, D), jnp.float32), jax.ShapeDtypeStruct((N,), jnp.int32)
  vectors, ids = (
    jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=batch_sharding(mesh)) for a in (vectors, ids)
  )
  memory = _ranker(mesh).lower(vectors, vectors, (ids, ids)).compile().memory_analysis()
  # Embeddings are copied to the devices, each of which holds a share and a block.
  held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
  assert held * devices < 1e9


def test_several_texts_an_image_are_candidates_of_their_own():
  vectors = {'a': [1, 0, 0], 'b': [0, 1, 0], 'c': [0, 0, 1]}

  def encode(texts):
    return np.array([vectors[text] for text in texts], np.float32)

  image = encode('abc')
  metrics, first = retrieve(image, [['c', 'a'], ['b'], ['a', 'b', 'c']], encode, [1, 2])
  # The first image's 'a' ties with the third's, and so on.
  assert metrics['image_to_text_recall@1'] == pytest.approx(1 / 2)
  assert metrics['image_to_text_recall@2'] == 1
  assert metrics['text_to_image_recall@1'] == pytest.approx(3 / 6)
  np.testing.assert_array_equal(first, encode('cba'))
  single, _ = retrieve(image, ['a', 'b', 'a'], encode, [1])
  assert single == {'image_to_text_recall@1': pytest.approx(5 / 6), 'text_to_image_recall@1': 1.0}
  with pytest.raises(ValueError, match='example 1 of 2 has no text'):
    retrieve(image[:2], [['a'], []], encode, [1])


def test_a_language_that_few_have_is_left_out():
  texts = [{'de': 'Hund', 'fr': ''}, {'de': 'Katze', 'fr': 'chat'}, {}]
  assert languages(texts, min_examples=2) == {'de': ([0, 1], ['Hund', 'Katze'])}
  assert languages(texts, min_examples=1)['fr'] == ([1], ['chat'])
