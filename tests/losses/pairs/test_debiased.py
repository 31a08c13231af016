import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference

B, APART = 7, np.arange(7)


@functools.cache
def step(prior, beta):
  """The sum of the losses, its gradients, and the losses of B pairs, compiled once."""

  def total(image, text, scale, same):
    options = {'scale': scale, 'same': same, 'prior': prior, 'beta': beta}
    each = losses.debiased_info_nce_per_example(image, text, **options)
    return jnp.sum(each), each

  return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


def loss(image, text, scale, prior, beta, same=APART):
  (_, each), _ = step(prior, beta)(image, text, scale, same)
  return each


def drawn():
  return reference.unit(np.random.default_rng(0), 2, B, B)


def test_without_prior_and_hardness_it_is_info_nce():
  image, text = drawn()
  same = np.array([0, 0, 0, 1, 2, 2, 3])
  (_, each), gradients = step(0.0, 0.0)(image, text, 6.0, same)
  info_nce = jax.jit(losses.info_nce_per_example)(image, text, scale=6.0, same=same)
  np.testing.assert_allclose(each, info_nce, rtol=1e-5, atol=1e-6)
  _, expected = reference.info_nce(image, text, 6.0, same)
  np.testing.assert_allclose(gradients[0] / B, expected[0], atol=1e-5)


def test_equal_negatives_have_one_closed_form():
  """Of an orthonormal set h is 1 at any hardness, and each loss log(1 + N g / e^s)."""
  for prior, beta in ((0.0, 0.0), (0.01, 1.0)):
    mean = (1 - prior * math.exp(3)) / (1 - prior)
    expected = math.log1p(6 * mean * math.exp(-3))
    np.testing.assert_allclose(loss(jnp.eye(B), jnp.eye(B), 3.0, prior, beta), expected, rtol=1e-5)


def test_hardness_moves_from_all_negatives_to_the_hardest():
  image, text = drawn()
  by_beta = [loss(image, text, 6.0, 0.01, beta) for beta in (1.0, 1e3)]
  assert np.all(by_beta[0] < by_beta[1])
  scores = 6 * np.float64(image @ text.T)
  positive = np.exp(np.diagonal(scores))
  hardest = np.stack([np.max(scores - 99 * np.eye(B), axis) for axis in (1, 0)])
  mean = np.maximum((np.exp(hardest) - 0.01 * positive) / 0.99, np.exp(-6))
  np.testing.assert_allclose(by_beta[1], np.mean(np.log1p(6 * mean / positive), 0), rtol=1e-4)


def test_a_correction_beyond_the_negatives_leaves_their_lower_bound():
  image, _ = drawn()
  (_, each), gradients = step(0.01, 1.0)(image, image, 50.0, APART)
  np.testing.assert_allclose(each, math.log1p(6 * math.exp(-100)), atol=1e-6)
  assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_an_anchor_without_negatives_counts_as_0():
  (_, each), gradients = step(0.01, 1.0)(*drawn(), 6.0, np.zeros(B, int))
  assert not np.any(each) and not np.any(gradients)
  one = np.ones((1, 4), 'f')
  assert jax.jit(functools.partial(losses.debiased_info_nce, scale=1.0))(one, one) == 0


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'prior': 1.0}, r'prior = 1\.0; use a number in \[0, 1\)'),
    ({'prior': -0.1}, r'prior = -0\.1'),
    ({'beta': -1.0}, r'beta = -1\.0; use 0 or more'),
    ({'beta': float('nan')}, 'beta = nan'),
  ],
)
def test_options_out_of_range_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    losses.debiased_info_nce(jnp.eye(2), jnp.eye(2), scale=1.0, **options)
