import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.losses import pairwise
from tests.losses import reference


def test_shares_are_those_of_the_softmax():
  rng = np.random.default_rng(0)
  x, y = reference.unit(rng, 3, 4), reference.unit(rng, 5, 4)
  draw = jax.jit(jax.vmap(lambda key: pairwise.sample(key, x, y, scale=2.0, block_size=4)))
  found = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
  shares = np.mean(found[..., None] == np.arange(5), 0)
  np.testing.assert_allclose(shares, reference.softmax(2.0 * x @ y.T, 1), atol=0.03)


def test_a_draw_is_the_same_in_any_blocks_and_on_any_mesh():
  rng = np.random.default_rng(0)
  x, y = reference.unit(rng, 16, 4), reference.unit(rng, 24, 4)
  found = [
    jax.jit(
      lambda key, block_size=block_size, mesh=mesh: pairwise.sample(
        key, x, y, block_size=block_size, mesh=reference.make_mesh(mesh)
      )
    )(jax.random.key(3))
    for block_size, mesh in ((None, 'none'), (8, '8/0'))
  ]
  np.testing.assert_array_equal(*found)
  assert len(np.unique(found[0])) > 4


def test_pairs_that_do_not_count_are_not_drawn():
  x, same = np.ones((4, 2), 'f'), np.array([0, 0, 0, 1])
  sample = jax.jit(pairwise.sample, static_argnames='diagonal')
  found = sample(jax.random.key(0), x, x, exclude=same, diagonal=False)
  assert found[:3].tolist() == [3, 3, 3] and found[3] in (0, 1, 2)
  found = sample(jax.random.key(0), x, x, exclude=np.zeros(4, int), diagonal=False)
  assert found.tolist() == [-1] * 4


def test_it_has_no_gradient():
  x = np.eye(4, dtype='f')
  loss = lambda x: jnp.vdot(x, x[pairwise.sample(jax.random.key(0), x, x, scale=99.0)])  # noqa: E731
  np.testing.assert_array_equal(jax.jit(jax.grad(loss))(x), 2 * x)
  with pytest.raises(ValueError, match=r'give \[B, D\]'):
    pairwise.sample(jax.random.key(0), x, x[:, :2])
