"""iSogCLR against its formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods.isogclr import ISogClr
from contrastive_jax.methods.method import Sizes

B, D, N = 6, 8, 1024
SIZES = Sizes(batch=B, embed=D, examples=N)
IDS = jnp.array([3, 1, 4, 15, 9, 2])


def unit(seed):
  x = jax.random.normal(jax.random.key(seed), (B, D))
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def inputs():
  return {'first': unit(0), 'second': unit(1), 'id': IDS}


def memory_of(method, **values):
  slots = method.memory(SIZES)
  own = {name: slot.init(jax.random.key(0)) for name, slot in slots.items()}
  for suffix, value in values.items():
    own |= {name: own[name].at[IDS].set(value) for name in own if name.endswith(suffix)}
  return own


def log_mean_exp(similarities, tau):
  """log mean exp(h / τ) over the negatives of each row, and the mean of h / τ under its softmax."""
  h = (similarities - np.diag(similarities)[:, None]) / np.asarray(tau)[:, None]
  h = h[~np.eye(B, dtype=bool)].reshape(B, -1)
  log_mean = np.log(np.mean(np.exp(h), 1))
  return log_mean, np.mean(np.exp(h) * h, 1) / np.exp(log_mean)


def test_a_step_of_image_and_text_is_the_formula():
  options = {'gamma': 0.3, 'rho': 0.5, 'learning_rate': 0.1, 'beta': 0.4, 'temperature': 0.4}
  method = ISogClr(**options, bounds=(0.05, 1.0))
  tau = np.linspace(0.2, 0.6, B)
  own = memory_of(method, log_mean=jnp.linspace(-1, 1, B), temperature=tau, momentum=0.2)
  result = method.loss(inputs(), {}, own, None)
  similarities = np.float64(unit(0)) @ np.float64(unit(1)).T
  loss = 0.0
  for side, matrix in (('first', similarities), ('second', similarities.T)):
    log_new, mean = log_mean_exp(matrix, tau)
    s = 0.7 * np.exp(np.linspace(-1, 1, B)) + 0.3 * np.exp(log_new)
    ratio = np.exp(log_new) / s
    loss += np.mean(tau * ratio) / 2
    slope = np.log(s) + 0.5 - ratio * mean
    momentum = 0.6 * 0.2 + 0.4 * np.clip(slope, -5, 5)
    np.testing.assert_allclose(result.writes[f'{side}.log_mean'], np.log(s), rtol=1e-4)
    np.testing.assert_allclose(result.writes[f'{side}.momentum'], momentum, rtol=1e-4)
    expected = np.clip(tau - 0.1 * momentum, 0.05, 1.0)
    np.testing.assert_allclose(result.writes[f'{side}.temperature'], expected, rtol=1e-4)
  assert result.loss == pytest.approx(loss, rel=1e-5)


def test_the_temperatures_gradient_is_that_of_the_objective():
  """At γ = 1, by finite differences of τ log mean exp(h / τ) + τ ρ."""
  tau, rho = np.linspace(0.2, 0.6, B), 0.5
  method = ISogClr(gamma=1.0, rho=rho, beta=1.0, bounds=(0.01, 2.0))
  writes = method.loss(inputs(), {}, memory_of(method, temperature=tau), None).writes
  similarities = np.float64(unit(0)) @ np.float64(unit(1)).T
  objective = lambda tau: tau * log_mean_exp(similarities, tau)[0] + tau * rho  # noqa: E731
  slope = (objective(tau + 1e-5) - objective(tau - 1e-5)) / 2e-5
  np.testing.assert_allclose(writes['first.momentum'], slope, rtol=1e-3, atol=1e-4)


def test_temperatures_stay_within_the_bounds():
  method = ISogClr(learning_rate=100.0, bounds=(0.01, 0.05))
  own = memory_of(method, temperature=0.03)

  @jax.jit
  def step(own):
    return method.update(own, method.loss(inputs(), {}, own, None).writes, {}, None)

  for _ in range(3):
    own = step(own)
    for side in ('first', 'second'):
      tau = own[f'{side}.temperature']
      assert tau.min() >= 0.01 and tau.max() <= 0.05


def test_a_shift_of_an_anchors_similarities_leaves_its_temperature():
  """h is a difference: with γ = 1 nothing else enters."""
  method = ISogClr(gamma=1.0, temperature=0.3, bounds=(0.01, 2.0), rho=0.1)
  # A further dimension on which all texts agree adds a constant per anchor.
  anchors = jnp.concatenate([unit(0), jnp.linspace(-1, 1, B)[:, None]], 1)
  texts = jnp.concatenate([unit(1), jnp.ones((B, 1))], 1)
  shifted = inputs() | {'first': anchors, 'second': texts}
  own = memory_of(method)
  before, after = (method.loss(given, {}, own, None).writes for given in (inputs(), shifted))
  np.testing.assert_allclose(
    after['first.temperature'], before['first.temperature'], rtol=1e-4, atol=1e-6
  )


def test_an_anchor_without_negatives_has_no_term():
  method = ISogClr()
  given = inputs() | {'same': jnp.zeros(B, jnp.int32)}
  own = memory_of(method)
  value_and_gradient = jax.jit(
    jax.value_and_grad(lambda x: method.loss(given | {'first': x}, {}, own, None).loss)
  )
  loss, gradient = value_and_gradient(given['first'])
  assert loss == 0 and not gradient.any()
  after = method.update(own, method.loss(given, {}, own, None).writes, {}, None)
  for name, table in own.items():
    np.testing.assert_array_equal(after[name], table)
