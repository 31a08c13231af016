import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.labels.tracks import momentum_bank, tracks_per_item
from tests.losses import reference

DRAWN = np.random.default_rng(0)
V = DRAWN.normal(size=(3, 4))
NEAR, FAR = DRAWN.normal(size=(3, 2, 4)), DRAWN.normal(size=(3, 5, 4))
SEEN = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1]], bool)

tracks, bank = jax.jit(losses.tracks), jax.jit(momentum_bank)
per_item = jax.jit(tracks_per_item, static_argnames=('auxiliary', 'weight'))


def dense(v, near, far):
  pairs = sum(np.exp(v @ n - v @ p) for p in near for n in far)
  cosine = lambda x: v @ x / np.linalg.norm(v) / np.linalg.norm(x)  # noqa: E731
  errors = [(cosine(p) - 1) ** 2 for p in near] + [cosine(n) ** 2 for n in far]
  return 2 * np.log1p(pairs) + 3 * np.mean(errors)


def test_an_item_is_the_formula_over_its_valid_pairs():
  positive, negative = np.array([[1, 1], [1, 0], [0, 0]], bool), np.ones((3, 5), bool)
  negative[1, 2:] = False
  with jax.enable_x64(True):
    found = per_item(V, NEAR, FAR, positive_valid=positive, negative_valid=negative)
    mean = tracks(V, NEAR, FAR, positive_valid=positive, negative_valid=negative)
  expected = [dense(V[i], NEAR[i][positive[i]], FAR[i][negative[i]]) for i in range(2)]
  np.testing.assert_allclose(found, [*expected, 0], rtol=1e-10)
  np.testing.assert_allclose(mean, np.mean(expected), rtol=1e-10)


def test_with_one_positive_it_is_info_nce_at_temperature_one():
  found = per_item(V, NEAR[:, :1], FAR, auxiliary=0.0, weight=1.0)
  logits = np.einsum('id,ind->in', V, np.concatenate([NEAR[:, :1], FAR], 1))
  expected = reference.logsumexp(logits, 1) - logits[:, 0]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_order_of_positives_and_negatives_is_free():
  found, other = tracks(V, NEAR, FAR), tracks(V, NEAR[:, ::-1], FAR[:, ::-1])
  np.testing.assert_allclose(found, other, rtol=1e-6)


def test_every_embedding_has_a_gradient_and_those_without_pairs_a_finite_one():
  valid = np.array([[1, 1], [1, 1], [0, 0]], bool)
  nothing = np.zeros((3, 5), bool)
  of = jax.jit(jax.grad(lambda *x: losses.tracks(*x, positive_valid=valid), (0, 1, 2)))
  assert all(np.abs(leaf[:2]).max() > 0 and not leaf[2].any() for leaf in of(V, NEAR, FAR))
  without = jax.jit(jax.grad(lambda v: losses.tracks(v, NEAR, FAR, negative_valid=nothing)))
  assert np.isfinite(without(0 * V)).all()
  assert tracks(V, NEAR, FAR, positive_valid=0 * valid) == 0


def test_the_bank_moves_by_the_mean_cosine_with_earlier_frames():
  features = DRAWN.normal(size=(4, 3, 5))
  with jax.enable_x64(True):
    banks = bank(features, SEEN)
  directions = features / np.linalg.norm(features, axis=-1, keepdims=True)
  for n in range(3):
    expected = np.zeros(5)
    for t in range(4):
      earlier = [k for k in range(t) if SEEN[k, n]]
      if SEEN[t, n]:
        beta = np.mean([directions[t, n] @ directions[k, n] for k in earlier]) if earlier else 1
        beta = max(0, beta)
        expected = (1 - beta) * expected + beta * features[t, n]
      np.testing.assert_allclose(banks[t, n], expected, rtol=1e-10)


def test_an_opposite_embedding_keeps_the_bank():
  features = np.stack([V, -V])
  banks = bank(features, np.ones((2, 3), bool))
  np.testing.assert_allclose(banks[1], V, rtol=1e-6)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: losses.tracks(V, NEAR[:2], FAR), r'anchors \(3, 4\) and positives \(2, 2, 4\)'),
    (lambda: losses.tracks(V, NEAR, FAR[..., :2]), r'and negatives \(3, 5, 2\) do not match'),
    (lambda: losses.tracks(V, NEAR, FAR, positive_valid=SEEN), 'and their valid ones'),
    (lambda: momentum_bank(NEAR, SEEN), r'embeddings \(3, 2, 4\) and seen \(4, 3\)'),
  ],
)
def test_shapes_that_do_not_match_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
