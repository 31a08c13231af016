import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def dense(embeddings, scale, classes):
  scores = scale * embeddings @ embeddings.T
  positive = (classes[:, None] == classes) & ~np.eye(len(classes), dtype=bool)
  masked = scores.copy()
  np.fill_diagonal(masked, -np.inf)
  log_probability = scores - reference.logsumexp(masked, 1)[:, None]
  anchors = [
    -log_probability[i][positive[i]].mean() for i in range(len(classes)) if positive[i].any()
  ]
  return np.mean(anchors) if anchors else 0.0


@pytest.mark.parametrize('classes', [[0, 0, 0, 0], [3, 3, 3, 8], [1, 2, 3, 4]])
def test_value_and_gradients_are_the_dense_ones(classes):
  classes = np.array(classes)
  embeddings = reference.unit(np.random.default_rng(0), len(classes), 3)
  loss = lambda z, scale: losses.supervised(z, classes, scale=scale, block_size=3)  # noqa: E731
  truth = functools.partial(dense, classes=classes)
  value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(embeddings, 5.0)
  reference.assert_near(value, truth(embeddings, 5.0))
  expected = reference.differences(truth, embeddings, 5.0)
  jax.tree.map(reference.assert_near, gradients, expected)


def test_with_one_positive_each_it_is_nt_xent():
  first, second = reference.unit(np.random.default_rng(0), 2, 7, 4)

  @jax.jit
  def both(first, second):
    views, classes = jnp.concatenate([first, second]), np.arange(14) % 7
    return losses.supervised(views, classes, scale=6.0), losses.nt_xent(first, second, scale=6.0)

  np.testing.assert_allclose(*both(first, second), rtol=1e-5)


def test_one_example_alone_gives_zero():
  step = jax.jit(jax.value_and_grad(functools.partial(losses.supervised, scale=1.0)))
  value, gradient = step(np.ones((1, 4), 'f'), np.zeros(1, int))
  assert value == 0
  np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


def test_mismatches_are_refused():
  with pytest.raises(ValueError, match=r'embeddings \(4, 2\) and classes \(3,\)'):
    losses.supervised(jnp.ones((4, 2)), jnp.arange(3), scale=1.0)
