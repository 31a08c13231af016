import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def dense(first, second, scale):
  views = np.concatenate([first, second])
  size = len(first)
  scores = scale * views @ views.T
  positive = np.diagonal(np.roll(scores, size, axis=1))
  np.fill_diagonal(scores, -np.inf)
  return np.mean(reference.logsumexp(scores, 1) - positive)


@pytest.mark.parametrize('mesh', ['none', '2'])
@pytest.mark.parametrize('batch', [1, 6])
def test_value_and_gradients_are_the_dense_ones(batch, mesh):
  if mesh != 'none':
    batch *= 2
  first, second = reference.unit(np.random.default_rng(0), 2, batch, 3)
  loss = jax.jit(
    lambda *a: losses.nt_xent(*a[:2], scale=a[2], block_size=4, mesh=reference.make_mesh(mesh))
  )
  reference.assert_near(loss(first, second, 5.0), dense(first, second, 5.0))
  expected = reference.differences(dense, first, second, 5.0)
  jax.tree.map(reference.assert_near, jax.grad(loss, (0, 1, 2))(first, second, 5.0), expected)


def test_orthonormal_views():
  loss = losses.nt_xent(jnp.eye(7), jnp.eye(7), scale=3.0)
  assert loss == pytest.approx(math.log(math.exp(3) + 2 * 6) - 3, rel=1e-5)


def test_views_may_be_swapped():
  first, second = reference.unit(np.random.default_rng(0), 2, 9, 4)
  loss = functools.partial(losses.nt_xent, scale=5.0)
  np.testing.assert_allclose(loss(first, second), loss(second, first), rtol=1e-6)


def test_mismatches_are_refused():
  with pytest.raises(ValueError, match=r'first \(3, 4\) and second \(4, 4\)'):
    losses.nt_xent(jnp.ones((3, 4)), jnp.ones((4, 4)), scale=1.0)
