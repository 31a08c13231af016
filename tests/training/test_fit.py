"""A fit is a pure function of its task, its seed and the number of steps."""

import json
import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax.models.definition import define
from contrastive_jax.runtime.preemption import Preempted
from contrastive_jax.training.fit import Fit, fit, learn

OPTIMIZER = optax.adam(0.1)
STEPS = {'total_steps': 6, 'log_every': 2, 'checkpoint_every': 2, 'seed': 3}


def make(batch=lambda step: {'x': np.float32([step])}, scale=1.0):
  """Moves a weight to noisy targets, and remembers the last one in a buffer."""

  def init(key):
    weight = jax.random.normal(key, (2,))
    buffer = {'seen': jnp.zeros((2,), bool), 'last': jnp.zeros(())}
    return {'weight': weight, 'optimizer': OPTIMIZER.init(weight), 'buffer': buffer}

  def step(state, batch, key):
    target = batch['x'][0] + jax.random.normal(key)

    def loss_of(weight):
      return scale * jnp.mean((weight - target) ** 2)

    loss, gradient = jax.value_and_grad(loss_of)(state['weight'])
    updates, optimizer = OPTIMIZER.update(gradient, state['optimizer'])
    buffer = {'seen': state['buffer']['seen'].at[0].set(True), 'last': target}
    weight = optax.apply_updates(state['weight'], updates)
    return {'weight': weight, 'optimizer': optimizer, 'buffer': buffer}, {'loss': loss}

  return Fit(init, step, batch)


def lines(folder):
  rows = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  return [(row['step'], row['train/loss']) for row in rows]


def test_killed_is_never_killed(tmp_path):
  through = fit(make(), tmp_path / 'through', **STEPS)

  def fails(step):
    if step == 5:
      raise RuntimeError('killed')
    return {'x': np.float32([step])}

  with pytest.raises(RuntimeError, match='killed'):
    fit(make(fails), tmp_path / 'killed', **STEPS)
  resumed = fit(make(), tmp_path / 'killed', **STEPS)
  chex.assert_trees_all_equal(resumed, through)
  assert lines(tmp_path / 'killed') == lines(tmp_path / 'through')
  assert [step for step, _ in lines(tmp_path / 'through')] == [2, 4, 6]

  def never(step):
    raise AssertionError('a finished fit takes no step')

  chex.assert_trees_all_equal(fit(make(never), tmp_path / 'through', **STEPS), through)


def test_a_signal_saves_the_step(tmp_path):
  def stop(step):
    if step == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return {'x': np.float32([step])}

  with pytest.raises(Preempted) as stopped:
    fit(make(stop), tmp_path / 'stopped', **STEPS | {'checkpoint_every': 100})
  assert stopped.value.step == 3
  resumed = fit(make(), tmp_path / 'stopped', **STEPS)
  chex.assert_trees_all_equal(resumed, fit(make(), tmp_path / 'through', **STEPS))


def test_a_loss_that_is_not_finite_stops_the_fit(tmp_path):
  with pytest.raises(FloatingPointError, match='the loss of step 2 is nan'):
    fit(make(scale=jnp.nan), tmp_path, **STEPS)


def test_a_learner_descends_and_moves_running_statistics():
  image = {'size': 8, 'patch': 4, 'width': 8, 'layers': 0, 'heads': 2, 'pooling': 'mean'}
  image |= {'stem': 'convolution', 'stem_blocks': (0, 1), 'stem_norm': 'batch', 'pre_norm': False}
  definition = define('encoder', embed=8, image=image)

  def loss(module, batch, key):
    features, _ = module.image(batch)
    return jnp.mean(features**2), {'largest': jnp.max(features)}

  init, step = learn(definition, optax.sgd(0.1), loss)
  images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
  first, advance = init(jax.random.key(0)), jax.jit(step)
  second, metrics = advance(first, images, jax.random.key(1))
  _, after = advance(second, images, jax.random.key(2))
  assert after['loss'] < metrics['loss'] and 'largest' in metrics
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), first.statistics, second.statistics)
  assert all(jax.tree.leaves(moved)) and jax.tree.leaves(moved)
  chex.assert_trees_all_equal_shapes(second.evaluated, definition.shapes)
