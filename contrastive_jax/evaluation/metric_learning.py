"""Metrics of metric learning: retrieval by class, clusters, and utilization of the space."""

from collections.abc import Sequence

import numpy as np

from contrastive_jax.evaluation.neighbors import nearest


def recall_by_class(
  embeddings: np.ndarray, labels: Sequence[int] | np.ndarray, ks: Sequence[int] = (1, 2, 4, 8)
) -> dict[str, float]:
  """The share of examples with one of their class among their k nearest others.

  Args:
    embeddings: [N, D] unit vectors.
    labels: [N], their classes.
    ks: numbers of neighbors, below N.

  Returns:
    'recall@K' by K, from 0 to 1.

  >>> recall_by_class(np.eye(3)[[0, 0, 1, 2]], [0, 0, 1, 1], ks=(1, 3))
  {'recall@1': 0.5, 'recall@3': 1.0}
  """
  labels = np.asarray(labels)
  # The nearest is usually the example itself, which is left out wherever it stands.
  _, rows = nearest(embeddings, embeddings, max(ks) + 1)
  own = rows == np.arange(len(rows))[:, None]
  own[~own.any(1), -1] = True
  others = rows[~own].reshape(len(rows), -1)
  same = labels[others] == labels[:, None]
  return {f'recall@{k}': float(np.mean(np.any(same[:, :k], 1))) for k in ks}


def k_means(embeddings: np.ndarray, k: int, *, steps: int = 100, seed: int = 0) -> np.ndarray:
  """The clusters [N] of k-means, from centers that k-means++ draws.

  Args:
    embeddings: [N, D].
    k: number of clusters, at most N.
    steps: maximum number of steps.
    seed: of the draws.

  >>> k_means(np.float32([[0], [0], [9], [9]]), 2).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
  True
  """
  x, rng = np.asarray(embeddings, np.float64), np.random.default_rng(seed)
  centers = x[rng.integers(len(x))][None]
  while len(centers) < k:
    near = np.min(squared_distances(x, centers), 1)
    weights = near if near.sum() > 0 else np.ones_like(near)
    centers = np.append(centers, x[rng.choice(len(x), p=weights / weights.sum())][None], 0)
  clusters = np.full(len(x), -1)
  for _ in range(steps):
    moved = np.argmin(squared_distances(x, centers), 1)
    if np.array_equal(moved, clusters):
      break
    clusters = moved
    members = np.eye(k)[clusters]
    counts = members.sum(0)[:, None]
    # A cluster without members keeps its center.
    centers = np.where(counts > 0, members.T @ x / np.maximum(counts, 1), centers)
  return clusters


def normalized_mutual_information(first: Sequence[int], second: Sequence[int]) -> float:
  """The mutual information of two labelings over the mean of their entropies, from 0 to 1.

  It is 1 for two labelings of one class.

  >>> normalized_mutual_information([0, 0, 1, 1], [5, 5, 3, 3])
  1.0
  """
  _, rows = np.unique(np.asarray(first), return_inverse=True)
  _, columns = np.unique(np.asarray(second), return_inverse=True)
  joint = np.zeros((rows.max() + 1, columns.max() + 1))
  np.add.at(joint, (rows, columns), 1 / len(rows))
  of_rows, of_columns, of_both = map(_entropy, (joint.sum(1), joint.sum(0), joint))
  mean = (of_rows + of_columns) / 2
  return float(min(max((of_rows + of_columns - of_both) / mean, 0.0), 1.0)) if mean else 1.0


def _entropy(shares: np.ndarray) -> float:
  positive = shares[shares > 0]
  return float(-np.sum(positive * np.log(positive)))


def utilization(queries: np.ndarray, embeddings: np.ndarray) -> float:
  """The mean squared distance of queries to the nearest of the embeddings, u(Q, X) of Metrix [1].

  Lower is better: the embeddings of training, clean or mixed, reach where unseen classes lie. That
  distances are squared is our reading.

  Args:
    queries: [Q, D] unit vectors.
    embeddings: [N, D] unit vectors.

  References:
    [1] Venkataramanan et al., https://arxiv.org/abs/2106.04990

  >>> utilization(np.eye(2), np.eye(2)[:1])      # 0 and 2
  1.0
  """
  scores, _ = nearest(queries, embeddings, 1)
  return float(np.mean(np.maximum(2 - 2 * scores, 0.0)))


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """‖x_i − y_j‖² [N, M] of [N, D] and [M, D]."""
  squared = np.sum(x**2, 1)[:, None] + np.sum(y**2, 1) - 2 * x @ y.T
  return np.maximum(squared, 0.0)
