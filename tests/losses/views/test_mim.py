"""The laws of the terms of cMIM; tests/losses/test_laws.py compares them with whole matrices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import dense

SCALE = 2.0


@jax.jit
def contrast(latents):
  return jax.value_and_grad(lambda latents: losses.mim_contrast(latents, scale=SCALE))(latents)


def drawn():
  return np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)


@pytest.mark.parametrize('size', [2, 8])
def test_orthogonal_latents_have_one_loss_in_any_batch(size):
  loss, _ = contrast(np.eye(8, dtype=np.float32)[:size])
  assert loss == pytest.approx(math.log1p(math.exp(-SCALE)), rel=1e-5)
  # InfoNCE grows by the logarithm of the number of negatives.
  info_nce = dense.info_nce(np.eye(size), np.eye(size), SCALE)[0]
  assert info_nce == pytest.approx(math.log1p((size - 1) * math.exp(-SCALE)), rel=1e-5)


def test_the_loss_is_bounded():
  opposite = np.eye(8, dtype=np.float32)[:1] * [[1], [-1]]
  low, high = (math.log1p(math.exp(-c * SCALE)) for c in (2, 0))
  assert contrast(np.float32(opposite))[0] == pytest.approx(low, rel=1e-5)
  assert contrast(np.ones((8, 8), np.float32))[0] == pytest.approx(high, rel=1e-5)
  assert low < contrast(drawn())[0] < high == math.log(2)
  loss, gradient = contrast(drawn()[:1])  # without negatives
  assert loss == 0 and not gradient.any()


def test_the_length_of_a_latent_changes_nothing():
  loss, gradient = contrast(drawn())
  lengths = np.float32(4.0) ** np.arange(-4, 4)[:, None]
  other, divided = contrast(lengths * drawn())
  assert other == pytest.approx(float(loss), rel=1e-5)
  np.testing.assert_allclose(lengths * divided, gradient, atol=1e-6)
  assert np.isfinite(contrast(np.zeros((8, 8), np.float32))[1]).all()


def test_only_negatives_have_a_gradient():
  @jax.jit
  @jax.grad
  def of_negatives(latents):
    z = latents / jnp.linalg.norm(latents, axis=1, keepdims=True)
    scores = jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, SCALE * z @ z.T)
    negatives = jax.nn.logsumexp(scores, 1) - math.log(len(z) - 1)
    return jnp.mean(jax.nn.softplus(negatives - SCALE))

  np.testing.assert_allclose(contrast(drawn())[1], of_negatives(drawn()), atol=1e-6)


def test_the_width_divides_gradient_or_value():
  gaussian = np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)

  @jax.jit
  def evaluate(gaussian):
    return [
      jax.value_and_grad(lambda given, how=divide: losses.mim_densities(*given, divide=how))(
        gaussian
      )
      for divide in ('none', 'gradient', 'value')
    ]

  (value, gradient), (same, divided), (sixth, likewise) = evaluate(gaussian)
  assert same == pytest.approx(float(value), rel=1e-5)
  assert sixth == pytest.approx(float(value) / 6, rel=1e-5)
  for part in (divided, likewise):
    np.testing.assert_allclose(part, gradient / 6, rtol=1e-4, atol=1e-6)
  with pytest.raises(ValueError, match=r"divide = 'both' is unknown; use one of \('none'"):
    losses.mim_densities(*gaussian, divide='both')
