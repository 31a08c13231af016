import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference

B, V, D, K = 12, 3, 5, 4


@pytest.fixture(scope='module')
def drawn():
  rng = np.random.default_rng(0)
  return reference.unit(rng, B, V, D), reference.unit(rng, K, D)


def test_only_the_first_views_are_assigned(drawn):
  """With one assigned view, the others predict it, and its own scores take no part."""
  views, prototypes = drawn

  @jax.jit
  @jax.grad
  def gradient(views):
    return losses.swav(views, prototypes, scale=10.0, assigned=1)

  found = np.asarray(gradient(views))
  assert not np.any(found[:, 0]) and np.all(np.any(found[:, 1:], (0, 2)))


def test_views_at_the_prototypes_are_the_entropy_of_a_sharp_softmax():
  """Equal shares at orthonormal prototypes are balanced already: CE(Q, p) of known scores."""
  views = jnp.stack([jnp.eye(K)[jnp.arange(B) % K]] * V, 1)
  found = jax.jit(lambda views: losses.swav(views, jnp.eye(K), scale=10.0, epsilon=0.05))(views)
  assert found == pytest.approx(np.log(np.exp(10) + K - 1) - 10, abs=1e-4)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'assigned': 4}, r'assigned = 4 of 3 views'),
    ({'assigned': 0}, r'assigned = 0 of 3 views'),
    ({'epsilon': 0.0}, r'epsilon = 0\.0; use a number over 0'),
    ({'iterations': 0}, r'iterations = 0; use 1 or more'),
    ({'views': np.ones((2, 1, D))}, r'\(2, 1, 5\) are of one view'),
    ({'prototypes': np.ones((K, D + 1))}, r'prototypes \(4, 6\); give \[B, V, D\] and \[K, D\]'),
  ],
)
def test_what_cannot_be_assigned_is_refused(drawn, change, message):
  given = {'views': drawn[0], 'prototypes': drawn[1], 'scale': 10.0} | change
  with pytest.raises(ValueError, match=message):
    losses.swav(**given)
