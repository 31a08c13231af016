import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.tokens.patches import share_in_order
from tests.losses import reference

B, M, C = 3, 5, 12


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dense_ranking(predicted, errors):
  """By loops over pairs, as the paper defines it, in float64."""
  terms = []
  for r, error in zip(np.float64(predicted), errors, strict=True):
    for i in range(len(r)):
      for j in range(len(r)):
        if error[i] != error[j]:
          chance = 1 / (1 + np.exp(r[i] - r[j]))  # that j is the harder one
          terms.append(-np.log(chance if error[j] > error[i] else 1 - chance))
  return np.mean(terms)


def test_the_ranking_is_the_dense_one_and_ties_do_not_count():
  predicted, errors = draw(B, M), draw(B, M, seed=1)
  errors[:, 1] = errors[:, 0]
  value, gradients = jax.jit(jax.value_and_grad(losses.patch_ranking, (0, 1)))(predicted, errors)
  reference.assert_near(value, dense_ranking(predicted, errors))
  expected = reference.differences(lambda r: dense_ranking(r, errors), predicted)[0]
  reference.assert_near(gradients[0], expected)
  assert not np.any(gradients[1])  # errors are what is predicted


def test_the_ranking_at_special_values():
  errors = draw(B, M)
  even, right = np.ones((B, M)), 1e4 * errors
  assert losses.patch_ranking(even, errors) == pytest.approx(np.log(2))
  assert losses.patch_ranking(right, errors) == pytest.approx(0, abs=1e-6)
  assert [share_in_order(predicted, errors) for predicted in (even, right)] == [0, 1]
  moved = [losses.patch_ranking(draw(B, M, seed=1) + by, errors) for by in (0, 3)]
  np.testing.assert_allclose(*moved, rtol=1e-5)
  assert losses.patch_ranking(errors, np.zeros((B, M))) == 0
  with pytest.raises(ValueError, match=r'predicted \(3, 5\) and errors \(3, 4\); give \[B, M\]'):
    losses.patch_ranking(errors, errors[:, 1:])


def test_errors_are_those_of_patches_normalized_by_themselves():
  patches, predicted = draw(B, M, C), draw(B, M, C, seed=1)
  wide = np.float64(patches)
  normalized = wide - wide.mean(-1, keepdims=True)
  normalized /= np.sqrt(wide.var(-1, ddof=1, keepdims=True) + 1e-6)
  errors = losses.patch_errors(predicted, patches)
  reference.assert_near(errors, np.mean((predicted - normalized) ** 2, -1))
  brighter = losses.patch_errors(predicted, 3 * patches + 2)
  np.testing.assert_allclose(brighter, errors, rtol=1e-4)
  flat = losses.patch_errors(np.zeros((1, 1, C)), np.full((1, 1, C), 0.7))
  assert flat[0, 0] == pytest.approx(0, abs=1e-6)
  with pytest.raises(ValueError, match=r'predicted \(3, 5, 11\) and patches \(3, 5, 12\)'):
    losses.patch_errors(predicted[..., 1:], patches)
