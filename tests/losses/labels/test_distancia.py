import functools

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.labels.distancia import icnn_score
from tests.losses import reference


def pairs(x, y):
  return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1) + 1e-6)


def dense(x, classes, y=None, others=None, *, k=4, candidates=None):
  """The score by sorting all distances, one sample at a time."""
  distances = pairs(x, x if y is None else y)
  if y is None:
    np.fill_diagonal(distances, np.inf)
  others = classes if others is None else others
  M = distances.shape[1]
  k = min(k, M - 2)
  nearest = np.argsort(distances, 1)[:, : candidates or k + 1]
  within, between, largest = [], [], 0.0
  shares = []
  for row, own, columns in zip(distances, classes, nearest, strict=True):
    same = others[columns] == own
    norm = min(row[columns][~same], default=np.inf)
    relative = row[columns][:k] / norm
    relative = relative / max(1, relative.max())
    if same[:k].any():
      within.append(relative[same[:k]].mean())
    if (~same[:k]).any():
      between.append(row[columns][:k][~same[:k]].mean())
      largest = max(largest, row[columns][:k][~same[:k]].max())
    shares.append(same[:k].mean())
  other = np.mean(between) / largest if between else 1.0
  lam = (1 - (np.mean(within) if within else 0) + other) / 2
  return (lam + (np.mean(shares) if k + 2 < M else 1.0)) / 2


RANDOM = np.random.default_rng(0)
EMBEDDINGS = RANDOM.normal(size=(16, 3)).astype(np.float32)
CLASSES = np.arange(16) % 4
SUPPORT = RANDOM.normal(size=(8, 3)).astype(np.float32)


@pytest.mark.parametrize(
  'options', [{}, {'neighbors': 2, 'candidates': 9}, {'neighbors': 20}], ids=str
)
def test_the_score_and_its_gradient_are_the_dense_ones(options):
  named = {'neighbors': 'k'}
  truth = lambda x: dense(x, CLASSES, **{named.get(n, n): v for n, v in options.items()})  # noqa: E731
  step = jax.jit(jax.value_and_grad(lambda x: icnn_score(x, CLASSES, **options)))
  score, gradient = step(EMBEDDINGS)
  np.testing.assert_allclose(score, truth(np.float64(EMBEDDINGS)), rtol=1e-5)
  expected = reference.differences(truth, np.float64(EMBEDDINGS))
  np.testing.assert_allclose(gradient, expected[0], rtol=2e-3, atol=1e-5)


def test_among_targets_of_their_own_all_count():
  given = SUPPORT, np.arange(8) % 4
  found = jax.jit(lambda x: icnn_score(x, CLASSES, *given, neighbors=3))(EMBEDDINGS)
  np.testing.assert_allclose(found, dense(EMBEDDINGS, CLASSES, *given, k=3), rtol=1e-5)


def test_turns_moves_and_scales_keep_the_score():
  turn, _ = np.linalg.qr(RANDOM.normal(size=(3, 3)))
  moved = 10 * (EMBEDDINGS @ turn.astype(np.float32)) + 100
  score = jax.jit(icnn_score)
  np.testing.assert_allclose(score(moved, CLASSES), score(EMBEDDINGS, CLASSES), rtol=1e-3)


def test_tight_classes_far_apart_score_one():
  corners = 100 * np.eye(4, 3, dtype=np.float32)[CLASSES]
  clusters = corners + 0.01 * EMBEDDINGS
  score = jax.jit(functools.partial(icnn_score, neighbors=3))
  assert score(clusters, CLASSES) == pytest.approx(1, abs=1e-3)
  assert 0 < score(clusters, np.arange(16) // 4) < 0.6  # each class in all corners


def test_classes_without_partners_have_a_finite_loss():
  value, gradient = jax.jit(jax.value_and_grad(losses.icnn))(EMBEDDINGS, np.arange(16))
  assert 0 < value < np.inf and np.isfinite(gradient).all()


def test_equal_points_have_a_finite_gradient():
  loss = lambda x: losses.icnn(x, CLASSES) + losses.proto_triplet(x, CLASSES, x[:4])  # noqa: E731
  assert np.isfinite(jax.jit(jax.grad(loss))(np.zeros((16, 3), np.float32))).all()


def test_a_prototype_nearer_by_the_margin_costs_nothing():
  prototypes = np.float32([[0, 0], [4, 0], [0, 4]])
  queries = prototypes + np.float32([0.1, 0.1])
  loss = jax.jit(losses.proto_triplet)
  assert loss(queries, np.arange(3), prototypes) == 0
  wrong = np.array([1, 2, 0])
  distances = pairs(np.float64(queries), np.float64(prototypes))
  expected = [
    max(0, row[own] - np.delete(row, own).min() + 0.5)
    for row, own in zip(distances, wrong, strict=True)
  ]
  found = loss(queries, wrong, prototypes)
  np.testing.assert_allclose(found, np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda x: losses.icnn(x[:2], np.arange(2)), '2 targets; neighbors take at least 3'),
    (lambda x: losses.icnn(x, CLASSES, neighbors=0), 'neighbors = 0; use a number over 0'),
    (
      lambda x: losses.icnn(x, CLASSES, candidates=16),
      'candidates = 16 of 16 targets; use 5 to',
    ),
    (lambda x: losses.icnn(x, CLASSES[:3]), r'classes \(3,\) do not match the vectors \(16, 3\)'),
    (lambda x: losses.icnn(x, CLASSES, x[:, :2]), 'do not match; give'),
    (lambda x: losses.proto_triplet(x, CLASSES, x[:1]), '1 prototype; a triplet takes at least 2'),
    (lambda x: losses.proto_triplet(x, CLASSES[:2], x), r'labels \(2,\) do not match'),
    (lambda x: losses.proto_triplet(x, CLASSES, x[:, :2]), 'do not match; give'),
  ],
)
def test_what_cannot_be_compared_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call(EMBEDDINGS)
