import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax.training import optimizer

FIELDS = {'b1': 0.9, 'b2': 0.98, 'epsilon': 1e-6, 'weight_decay': 0.2, 'clip_norm': 1.0}


def test_schedule_warms_up_and_falls_to_zero():
  schedule = optimizer.make_schedule(learning_rate=2.0, warmup_fraction=0.1, total_steps=100)
  rates = np.array([schedule(step) for step in range(101)])
  assert rates[0] == 0 and rates[10] == rates.max() == 2.0
  assert rates[5] == pytest.approx(1.0) and rates[55] == pytest.approx(1.0)
  assert rates[100] == pytest.approx(0, abs=1e-6)
  assert (np.diff(rates[10:]) <= 0).all()


@pytest.mark.parametrize('total_steps', [1, 2, 3])
def test_schedule_of_few_steps_is_finite(total_steps):
  schedule = optimizer.make_schedule(
    learning_rate=1.0, warmup_fraction=0.5, total_steps=total_steps
  )
  assert np.isfinite([schedule(step) for step in range(total_steps)]).all()


def test_only_matrices_decay():
  parameters = {
    'layer': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)},
    'norm': {'scale': jnp.ones(2), 'bias': jnp.ones(2)},
    'log_scale': jnp.float32(1.0),
    'bias': jnp.float32(1.0),
  }
  transform = optimizer.make_optimizer(lambda step: 0.5, **FIELDS)
  zeros = jax.tree.map(jnp.zeros_like, parameters)
  updates, _ = transform.update(zeros, transform.init(parameters), parameters)
  expected = jax.tree.map(jnp.zeros_like, parameters)
  expected['layer']['kernel'] = jnp.full((2, 2), -0.5 * 0.2)
  chex.assert_trees_all_close(updates, expected)


@pytest.mark.parametrize(('gradient', 'bound'), [(-1.0, np.log(100)), (1.0, 0.0)])
def test_scale_stays_within_bounds_and_comes_back(gradient, bound):
  parameters = {'log_scale': jnp.float32(2.0)}
  transform = optimizer.make_optimizer(lambda step: 1.0, **FIELDS)
  state = transform.init(parameters)
  for _ in range(5):
    updates, state = transform.update({'log_scale': jnp.float32(gradient)}, state, parameters)
    parameters = optax.apply_updates(parameters, updates)
  assert parameters['log_scale'] == pytest.approx(bound, abs=1e-5)
  for _ in range(30):
    updates, state = transform.update({'log_scale': jnp.float32(-gradient)}, state, parameters)
    parameters = optax.apply_updates(parameters, updates)
  assert abs(parameters['log_scale'] - bound) > 0.5


def test_bad_warmup_is_named():
  with pytest.raises(ValueError, match=r'config\.optimizer\.warmup_fraction = 1'):
    optimizer.make_schedule(learning_rate=1.0, warmup_fraction=1, total_steps=2)
