import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.doubles import slow_but
from tests.losses import reference


@pytest.mark.parametrize('batch', slow_but([1, 2, 7], 1, 7))
def test_with_every_negative_it_is_info_nce(batch):
  image, text = reference.unit(np.random.default_rng(0), 2, batch, 4)

  @jax.jit
  def both(image, text):
    return [
      jax.value_and_grad(loss)(image, text, scale=6.0)
      for loss in (losses.hard_negative, losses.info_nce)
    ]

  (value, gradient), (expected, slope) = both(image, text)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(gradient, slope, atol=1e-5)


def test_more_negatives_cost_more():
  image, text = reference.unit(np.random.default_rng(0), 2, 9, 4)

  @jax.jit
  def values(image, text):
    return [losses.hard_negative(image, text, scale=6.0, k=k) for k in (1, 2, 4, 8)]

  by_k = values(image, text)
  assert by_k == sorted(by_k)


def test_penalties_are_shares_that_balance_the_positive():
  """Of a negative, its share of the softmax over what is left; of the positive, their sum."""
  scores = np.random.default_rng(0).normal(size=(7, 7))

  @jax.jit
  @jax.grad
  def slopes(scores):
    # The texts are the unit vectors, so that the images are the scores.
    return losses.hard_negative(scores, jnp.eye(7), scale=1.0, hard_fraction=0.5)

  with jax.enable_x64(True):
    found = np.asarray(slopes(scores))

  def penalties(scores):
    negatives = np.where(np.eye(7), -np.inf, scores)
    hard = negatives >= np.sort(negatives, 1)[:, -3:-2]
    return reference.softmax(np.where(hard | np.eye(7, dtype=bool), scores, -np.inf), 1)

  expected = (penalties(scores) + penalties(scores.T).T) / 2 - np.eye(7)
  np.testing.assert_allclose(found, expected / 7, atol=1e-9)
  assert -np.trace(found) == pytest.approx(np.sum(found) - np.trace(found))
