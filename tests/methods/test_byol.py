import jax.numpy as jnp
import pytest

from contrastive_jax.methods import METHODS


def test_the_target_of_byol_stops_moving_at_the_end():
  momentum = METHODS['byol']().target
  assert momentum(jnp.array(0), 100) == pytest.approx(0.996)
  assert momentum(jnp.array(50), 100) == pytest.approx(0.998)
  assert momentum(jnp.array(100), 100) == pytest.approx(1)
  assert str(METHODS['byol'](final_momentum=None).target) == '0.996'
