import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def dense(x, y, sharpness=2.0):
  others = ~np.eye(len(x), dtype=bool)
  return np.log(np.mean(np.exp(2 * sharpness * (x @ y.T - 1))[others]))


def within(image, text):
  return (dense(image, image) + dense(text, text)) / 2


@pytest.mark.parametrize('mesh', ['none', '2'])
@pytest.mark.parametrize(
  ('loss', 'truth'), [(losses.uniformity, within), (losses.cross_uniformity, dense)]
)
def test_value_and_gradients_are_the_dense_ones(loss, truth, mesh):
  image, text = reference.unit(np.random.default_rng(0), 2, 6, 3)
  step = jax.jit(
    jax.value_and_grad(lambda *a: loss(*a, block_size=2, mesh=reference.make_mesh(mesh)), (0, 1))
  )
  value, gradients = step(image, text)
  reference.assert_near(value, truth(image, text))
  jax.tree.map(reference.assert_near, gradients, reference.differences(truth, image, text))


@pytest.mark.parametrize('loss', [losses.uniformity, losses.cross_uniformity])
def test_bounds(loss):
  """Orthonormal embeddings give −2t, coinciding ones 0, the greatest."""
  eye, ones = jnp.eye(5), jnp.ones((5, 4)) / 2
  assert loss(eye, eye) == pytest.approx(-4, rel=1e-6)
  assert loss(eye, eye, sharpness=3.0) == pytest.approx(-6, rel=1e-6)
  assert loss(ones, ones) == pytest.approx(0, abs=1e-5)


def test_one_embedding_is_refused():
  with pytest.raises(ValueError, match='give 2 or more'):
    losses.uniformity(jnp.ones((1, 4)), jnp.ones((1, 4)))
  with pytest.raises(ValueError, match=r'image \(3, 4\) and text \(4, 4\)'):
    losses.cross_uniformity(jnp.ones((3, 4)), jnp.ones((4, 4)))
