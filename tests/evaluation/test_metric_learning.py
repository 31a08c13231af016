import numpy as np
import pytest

from contrastive_jax.evaluation import metric_learning as metrics
from tests.losses import reference

RNG = np.random.default_rng(0)


def test_recall_is_that_of_a_search_through_all_others():
  embeddings, labels = reference.unit(RNG, 20, 4), RNG.integers(0, 5, 20)
  embeddings[1] = embeddings[0]  # The nearest need not be the example itself.
  scores = embeddings @ embeddings.T - 9 * np.eye(20)
  order = np.argsort(-scores, 1, kind='stable')
  expected = {
    f'recall@{k}': np.mean([labels[i] in labels[row[:k]] for i, row in enumerate(order)])
    for k in (1, 2, 4)
  }
  assert metrics.recall_by_class(embeddings, labels, (1, 2, 4)) == pytest.approx(expected)


def test_the_mutual_information_is_scikit_learns():
  sklearn = pytest.importorskip('sklearn.metrics')
  for classes in (1, 2, 6):
    first, second = RNG.integers(0, classes, 40), RNG.integers(3, 7, 40)
    expected = sklearn.normalized_mutual_info_score(first, second)
    assert metrics.normalized_mutual_information(first, second) == pytest.approx(expected)
  assert metrics.normalized_mutual_information([1, 1], [0, 0]) == 1


def test_k_means_finds_groups_that_lie_apart():
  groups = np.repeat(np.arange(5), 8)
  points = 10 * np.eye(5)[groups] + RNG.normal(size=(40, 5)) / 10
  clusters = metrics.k_means(points, 5)
  assert metrics.normalized_mutual_information(clusters, groups) == pytest.approx(1)
  repeated = metrics.k_means(np.ones((4, 2)), 3)  # of which two have no member
  assert len(set(repeated)) == 1


def test_further_embeddings_never_raise_the_utilization():
  queries, near, far = reference.unit(RNG, 3, 6, 4)
  alone = metrics.utilization(queries, near)
  distances = np.sum((queries[:, None] - near) ** 2, 2)
  assert alone == pytest.approx(np.mean(np.min(distances, 1)), rel=1e-5)
  assert metrics.utilization(queries, np.concatenate([near, far])) <= alone
