"""The losses of AMCL: in whole matrices, and what they reduce to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.losses.views import adaptive
from tests.losses import dense, reference

B, D, E, BOUNDS = 8, 6, 5, (0.05, 1.5)
RNG = np.random.default_rng(0)
Z = reference.unit(RNG, 2 * B, D)  # the views of an example are consecutive
PHI = RNG.normal(size=(2 * B, E)).astype('f')
OWN = np.repeat(np.arange(B), 2)
OTHERS = OWN[:, None] != OWN
SWAPPED = np.arange(2 * B).reshape(B, 2)[:, ::-1].ravel()


def streamed(z, phi, **options):
  both = adaptive.Vectors(z, phi)
  positives = adaptive.Vectors(z[SWAPPED], phi[SWAPPED])
  given = {'exclude': OWN, 'diagonal': False, 'k': 5, 'beta': 0.01, 'bounds': BOUNDS} | options
  return adaptive.adaptive_contrast(both, positives, both, **given)


def whole(z, phi, k=5, beta=0.01, bounds=BOUNDS):
  positives = z[SWAPPED], phi[SWAPPED]
  return dense.adaptive_contrast((z, phi), positives, (z, phi), OTHERS, k, beta, bounds)


def compare(found, expected, arguments):
  """Values and gradients in float32 with those in float64."""

  def with_gradients(function):
    def weighed(*arguments):
      value = function(*arguments)
      return jnp.vdot(1 + jnp.cos(jnp.arange(jnp.size(value[0]))), value[0]), value

    places = tuple(range(len(arguments)))
    return jax.jit(jax.value_and_grad(weighed, places, has_aux=True))(*arguments)

  (_, value), gradients = with_gradients(found)
  with jax.enable_x64(True):
    arguments = [np.float64(a) for a in arguments]
    (_, truth), slopes = jax.device_get(with_gradients(expected))
  jax.tree.map(functools.partial(reference.assert_near, floor=0.01), tuple(value), truth)
  jax.tree.map(functools.partial(reference.assert_near, floor=0.01), gradients, slopes)
  return value


def test_the_contrast_on_eight_devices_is_the_dense_one():
  ring = functools.partial(streamed, block_size=2, mesh=reference.make_mesh('8'))
  terms = compare(ring, whole, (Z, PHI))
  for tau in terms[1:]:
    assert BOUNDS[0] < tau.min() and tau.max() < BOUNDS[1]


def test_at_one_temperature_it_compares_similarities():
  """τ L with β = 0 and τ = 1: φ of 0 leaves the middle of the bounds."""
  similarities = np.where(OTHERS, np.float64(Z) @ Z.T, -np.inf)
  positive = np.sum(np.float64(Z) * Z[SWAPPED], 1)
  middle = {'beta': 0.0, 'bounds': (0.5, 1.5)}
  with jax.enable_x64(True):

    @jax.jit
    def by_k(z):
      return [streamed(z, np.zeros((2 * B, E)), k=k, **middle).loss for k in (1, 5, 2 * B - 2)]

    hardest, some, every = by_k(np.float64(Z))
  np.testing.assert_allclose(hardest, similarities.max(1) - positive, rtol=1e-9)
  mean = np.mean(similarities, 1, where=OTHERS)
  np.testing.assert_allclose(every, mean - positive, rtol=1e-9)
  assert np.all(hardest >= some) and np.all(some >= every)


def test_temperatures():
  low, high = BOUNDS
  tau = adaptive.temperature(np.array([-50.0, -1.0, 0.0, 1.0, 50.0], 'f'), BOUNDS)
  assert np.all(np.diff(tau) < 0)  # similar pairs have low ones
  np.testing.assert_allclose(tau[jnp.array([0, 2, 4])], [high, (low + high) / 2, low], rtol=1e-5)
  at_low, at_high = adaptive.at_bounds(tau, BOUNDS)
  assert at_low.tolist() == [False] * 4 + [True] and at_high.tolist() == [True] + [False] * 4
  # The regularizer alone is minimal at 2 / width.
  below, at, above = adaptive.omega(np.array([1.9, 2.0, 2.1]) / 64, 64)
  assert at < min(below, above)


def test_the_loss_of_features_on_eight_devices_is_the_dense_one():
  """Six features, which eight devices pad."""
  first, second = ((v - v.mean(0)) / v.std(0) for v in RNG.normal(size=(2, B, D)).astype('f'))
  second = (first + second) / 2**0.5
  kernel = RNG.normal(size=(B, E)).astype('f')
  options = {'off_diagonal': 0.1, 'beta': 1e-3, 'bounds': BOUNDS}

  def phi(kernel):
    return lambda x: jnp.sin(x @ kernel) + 1  # of padding, 1

  def found(first, second, kernel):
    ring = {'block_size': 2, 'mesh': reference.make_mesh('8')}
    loss, shares = adaptive.adaptive_barlow_twins(first, second, phi(kernel), **options, **ring)
    return loss, jnp.stack([shares[name] for name in adaptive.SHARES])

  def expected(first, second, kernel):
    loss, tau = dense.adaptive_barlow_twins(first, second, phi(kernel), *options.values())
    own = jnp.eye(D, dtype=bool)
    margin = (BOUNDS[1] - BOUNDS[0]) / 100
    near = tau < BOUNDS[0] + margin, tau > BOUNDS[1] - margin
    return loss, jnp.stack([jnp.mean(a, where=pairs) for pairs in (own, ~own) for a in near])

  _, shares = compare(found, expected, (first, second, kernel))
  assert shares.any()


def test_at_one_temperature_features_have_the_loss_of_barlow_twins():
  first, second = ((v - v.mean(0)) / v.std(0) for v in RNG.normal(size=(2, B, D)).astype('f'))

  @jax.jit
  def both(first, second):
    options = {'off_diagonal': 0.1, 'beta': 0.0, 'bounds': (0.5, 1.5)}
    loss, _ = adaptive.adaptive_barlow_twins(first, second, jnp.zeros_like, **options)
    return loss, dense.barlow_twins(first, second, 0.1)

  loss, expected = both(first, second)
  assert loss == pytest.approx(float(expected), rel=1e-4)
