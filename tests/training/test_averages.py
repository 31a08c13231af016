"""The average that is evaluated, and target encoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods import Momentum
from contrastive_jax.training.averages import move_averages
from contrastive_jax.training.state import TrainState, start_from

OLD = {'tower': jnp.zeros(3)}
HEADS = {'method': {'projector': jnp.zeros(2)}}


def state(**fields):
  fields = {'average': OLD | {'heads': HEADS}, 'heads': HEADS} | fields
  return TrainState(
    step=jnp.int32(20),
    parameters=OLD,
    optimizer_state=(),
    key=jnp.zeros(2, jnp.uint32),
    average_norm=jnp.zeros(()),
    **fields,
  )


def move(before, targets, *, decay=0.9, total_steps=40):
  new = jax.tree.map(jnp.ones_like, before.trained)
  return move_averages(before, new, average_decay=decay, targets=targets, total_steps=total_steps)


def test_every_target_moves_by_its_own_momentum_with_its_heads():
  targets = {str(m): m for m in (Momentum(0.9), Momentum(0.6, 1.0), Momentum(1.0))}
  trees = dict.fromkeys(targets, OLD | {'heads': HEADS})
  after = move(state(targets=trees), targets).targets
  # Half way along the cosine from 0.6 to 1 the decay is 0.8.
  for key, share in (('0.9', 0.1), ('0.6-1', 0.2), ('1', 0.0)):
    for leaf in jax.tree.leaves(after[key]):
      np.testing.assert_allclose(leaf, share, rtol=1e-6)


def test_the_average_forgets_the_start():
  after = move(state(), {}, decay=0.99)
  np.testing.assert_allclose(after.average['tower'], 1 - 21 / 30, rtol=1e-6)


@pytest.mark.parametrize(
  ('fields', 'value'), [({'average': None}, 0.0), ({}, 2.0), ({'evaluated_target': '0.9'}, 3.0)]
)
def test_the_config_says_what_is_evaluated(fields, value):
  average, target = (jax.tree.map(lambda a, n=n: a + n, OLD | {'heads': HEADS}) for n in (2.0, 3.0))
  evaluated = state(**{'average': average, 'targets': {'0.9': target}} | fields).evaluated
  assert set(evaluated) == {'tower'}
  np.testing.assert_array_equal(evaluated['tower'], value)


def test_weights_start_model_average_and_targets_and_a_teacher_the_frozen_target():
  targets = {key: OLD | {'heads': HEADS} for key in ('0.9', '1')}
  given, teacher = {'tower': np.full(3, 5.0)}, {'tower': np.full(3, 7.0)}
  started = start_from(state(targets=targets), given, teacher)
  for tree in (started.parameters, started.average, started.targets['0.9']):
    np.testing.assert_array_equal(tree['tower'], 5)
  np.testing.assert_array_equal(started.targets['1']['tower'], 7)
  np.testing.assert_array_equal(started.targets['1']['heads']['method']['projector'], 0)
  assert start_from(state(), None, None).parameters is OLD
