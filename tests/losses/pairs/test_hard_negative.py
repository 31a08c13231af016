import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def dense(image, text, scale, k, same):
  scores = scale * image @ text.T
  own = np.diagonal(scores)
  masked = np.where(reference.counted(*scores.shape, same, diagonal=False), scores, -np.inf)
  hardest = (
    np.sort(masked, axis)[::-1] if axis == 0 else np.sort(masked.T, 0)[::-1] for axis in (0, 1)
  )
  return sum(np.mean(np.logaddexp(0, reference.logsumexp(h[:k], 0) - own)) / 2 for h in hardest)


@pytest.mark.parametrize('mesh', ['none', '2'])
@pytest.mark.parametrize('k', [1, 3, 64])
def test_value_and_gradients_are_the_dense_ones(k, mesh):
  image, text = reference.unit(np.random.default_rng(0), 2, 6, 3)
  same = np.array([0, 1, 0, 2, 3, 0])
  loss = jax.jit(
    lambda *a: losses.hard_negative(
      *a[:2], scale=a[2], k=k, same=same, block_size=4, mesh=reference.make_mesh(mesh)
    )
  )
  truth = functools.partial(dense, k=k, same=same)
  reference.assert_near(loss(image, text, 5.0), truth(image, text, 5.0))
  expected = reference.differences(truth, image, text, 5.0)
  jax.tree.map(reference.assert_near, jax.grad(loss, (0, 1, 2))(image, text, 5.0), expected)


@pytest.mark.parametrize('batch', [1, 2, 7])
def test_with_every_negative_it_is_info_nce(batch):
  image, text = reference.unit(np.random.default_rng(0), 2, batch, 4)
  value, gradient = jax.value_and_grad(losses.hard_negative)(image, text, scale=6.0)
  expected, slope = jax.value_and_grad(losses.info_nce)(image, text, scale=6.0)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(gradient, slope, atol=1e-5)


def test_more_negatives_cost_more():
  image, text = reference.unit(np.random.default_rng(0), 2, 9, 4)
  by_k = [losses.hard_negative(image, text, scale=6.0, k=k) for k in (1, 2, 4, 8)]
  assert by_k == sorted(by_k)


def test_mismatches_are_refused():
  with pytest.raises(ValueError, match=r'image \(3, 4\) and text \(4, 4\)'):
    losses.hard_negative(jnp.ones((3, 4)), jnp.ones((4, 4)), scale=1.0)
