import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses


def test_no_gradient_flows_into_the_target():
  p, v = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
  assert np.all(np.asarray(jax.grad(losses.cosine, 1)(p, v)) == 0)


def test_the_distance_depends_on_directions_alone():
  p = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  assert losses.cosine(p, 7 * p) == pytest.approx(0, abs=1e-6)
  assert losses.cosine(p, -p) == pytest.approx(4)


def test_a_zero_row_has_a_finite_gradient():
  assert np.all(np.isfinite(jax.grad(losses.cosine)(jnp.zeros((2, 3)), jnp.ones((2, 3)))))
