import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def dense(first, second, scale, sigma=None):
  products = first @ second.T
  own = np.diagonal(products)
  size = len(first)
  weight = 1.0
  if sigma is not None:
    weight = 2 - np.exp(own / sigma) / np.mean(np.exp(own / sigma))
  total = 0.0
  for cross, within in ((products, first @ first.T), (products.T, second @ second.T)):
    scores = scale * np.concatenate([cross, within], axis=1)
    scores[np.tile(np.eye(size, dtype=bool), (1, 2))] = -np.inf
    total += np.mean(reference.logsumexp(scores, 1) - weight * scale * own) / 2
  return total


@pytest.mark.parametrize('mesh', ['none', '2'])
@pytest.mark.parametrize('sigma', [None, 0.5])
def test_value_and_gradients_are_the_dense_ones(sigma, mesh):
  first, second = reference.unit(np.random.default_rng(0), 2, 6, 3)
  loss = jax.jit(
    lambda *a: losses.decoupled(
      *a[:2], scale=a[2], sigma=sigma, block_size=4, mesh=reference.make_mesh(mesh)
    )
  )
  truth = functools.partial(dense, sigma=sigma)
  reference.assert_near(loss(first, second, 5.0), truth(first, second, 5.0))
  expected = reference.differences(truth, first, second, 5.0)
  jax.tree.map(reference.assert_near, jax.grad(loss, (0, 1, 2))(first, second, 5.0), expected)


def test_orthonormal_views():
  loss = losses.decoupled(jnp.eye(7), jnp.eye(7), scale=3.0)
  assert loss == pytest.approx(math.log(2 * 6) - 3, rel=1e-5)


def test_wide_weights_are_no_weights():
  first, second = reference.unit(np.random.default_rng(0), 2, 9, 4)
  loss = functools.partial(losses.decoupled, first, second, scale=5.0)
  np.testing.assert_allclose(loss(sigma=1e5), loss(), rtol=1e-4)


def test_two_examples_are_each_others_only_negatives():
  """Then NT-Xent of an anchor is softplus of its decoupled loss."""
  first = reference.unit(np.random.default_rng(0), 4)
  views = np.stack([first, -first])
  decoupled = losses.decoupled(views, views, scale=2.0)
  nt_xent = losses.nt_xent(views, views, scale=2.0)
  np.testing.assert_allclose(nt_xent, jax.nn.softplus(decoupled), rtol=1e-5)


def test_one_example_is_refused():
  with pytest.raises(ValueError, match='1 rows, and no negatives; give 2 or more'):
    losses.decoupled(jnp.ones((1, 4)), jnp.ones((1, 4)), scale=1.0)
