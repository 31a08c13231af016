import jax.numpy as jnp
import pytest

from contrastive_jax import losses


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
