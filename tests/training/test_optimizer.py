import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax.models.definition import Definition
from contrastive_jax.sharding import mesh
from contrastive_jax.training import build, optimizer
from contrastive_jax.training.state import plan_state
from tests.training.test_loop import config

FIELDS = {'b1': 0.9, 'b2': 0.98, 'epsilon': 1e-6, 'weight_decay': 0.2, 'clip_norm': 1.0}


@pytest.mark.parametrize('decay', ['cosine', 'linear'])
def test_schedule_warms_up_and_falls_to_zero(decay):
  schedule = optimizer.make_schedule(
    learning_rate=2.0, warmup_fraction=0.1, total_steps=100, decay=decay
  )
  rates = np.array([schedule(step) for step in range(101)])
  assert rates[0] == 0 and rates[10] == rates.max() == 2.0
  assert rates[5] == pytest.approx(1.0) and rates[55] == pytest.approx(1.0)
  assert rates[100] == pytest.approx(0, abs=1e-6)
  assert (np.diff(rates[10:]) <= 0).all()
  # Cosine decay is slowest at the peak; linear decay is constant.
  assert rates[11] == pytest.approx(2.0 - {'cosine': 0.0006, 'linear': 1 / 45}[decay], abs=1e-4)


@pytest.mark.parametrize('total_steps', [1, 2, 3])
def test_schedule_of_few_steps_is_finite(total_steps):
  schedule = optimizer.make_schedule(
    learning_rate=1.0, warmup_fraction=0.5, total_steps=total_steps
  )
  assert np.isfinite([schedule(step) for step in range(total_steps)]).all()


@pytest.mark.parametrize('decay', ['cosine', 'linear'])
def test_schedule_without_warmup_starts_at_the_peak(decay):
  schedule = optimizer.make_schedule(
    learning_rate=2.0, warmup_fraction=0, total_steps=100, decay=decay
  )
  rates = np.array([schedule(step) for step in range(101)])
  assert rates[0] == 2.0 and rates[100] == pytest.approx(0, abs=1e-6)
  assert rates[50] == pytest.approx(1.0) and (np.diff(rates) <= 0).all()


@pytest.mark.parametrize('warmup_fraction', [0.0, 0.05, 0.5, 0.99])
@pytest.mark.parametrize('total_steps', [1, 2, 3, 40])
def test_schedule_reaches_the_peak_in_any_number_of_steps(warmup_fraction, total_steps):
  schedule = optimizer.make_schedule(
    learning_rate=2.0, warmup_fraction=warmup_fraction, total_steps=total_steps
  )
  assert max(schedule(step) for step in range(total_steps)) == 2.0


@pytest.mark.parametrize('name', ['adamw', 'adafactor'])
def test_weight_decay_applies_to_matrices_only(name):
  parameters = {
    'layer': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)},
    'norm': {'scale': jnp.ones(2), 'bias': jnp.ones(2)},
    'log_scale': jnp.float32(1.0),
    'bias': jnp.float32(1.0),
  }
  transform = optimizer.make_optimizer(lambda step: 0.5, **FIELDS, name=name)
  zeros = jax.tree.map(jnp.zeros_like, parameters)
  update = jax.jit(lambda g, p: transform.update(g, transform.init(p), p)[0])
  updates = update(zeros, parameters)
  expected = jax.tree.map(jnp.zeros_like, parameters)
  expected['layer']['kernel'] = jnp.full((2, 2), -0.5 * 0.2)
  chex.assert_trees_all_close(updates, expected)


@pytest.mark.parametrize(('gradient', 'bound'), [(-1.0, np.log(100)), (1.0, 0.0)])
def test_scale_stays_within_bounds_and_can_leave_them(gradient, bound):
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


@pytest.mark.parametrize('scale', [0.5, 1.0, 14.3, 100.0, 117.33])
def test_scale_is_unchanged_at_learning_rate_zero(scale):
  parameters = {'log_scale': jnp.float32(np.log(scale))}
  transform = optimizer.make_optimizer(lambda step: 0.0, **FIELDS)
  updates, _ = transform.update(parameters, transform.init(parameters), parameters)
  assert updates['log_scale'] == 0


@pytest.mark.parametrize(('scale', 'outward'), [(117.33, -1.0), (0.5, 1.0)])
def test_scale_outside_its_bounds_moves_only_toward_them(scale, outward):
  parameters = {'log_scale': jnp.float32(np.log(scale))}
  transform = optimizer.make_optimizer(lambda step: 0.01, **FIELDS)
  for gradient, moves in ((outward, 0.0), (-outward, 0.01 * outward)):
    updates, _ = transform.update(
      {'log_scale': jnp.float32(gradient)}, transform.init(parameters), parameters
    )
    assert updates['log_scale'] == pytest.approx(moves, abs=1e-5)


@pytest.mark.parametrize(('max_scale', 'ends'), [(20.0, (1.0, 20.0)), (0.0, (np.e**-2, np.e**6))])
def test_max_scale_sets_the_upper_bound(max_scale, ends):
  transform = optimizer.make_optimizer(lambda step: 1.0, **FIELDS, max_scale=max_scale)
  for gradient, end in zip((1.0, -1.0), ends, strict=True):
    parameters = {'log_scale': jnp.float32(2.0)}
    state = transform.init(parameters)
    for _ in range(4):
      updates, state = transform.update({'log_scale': jnp.float32(gradient)}, state, parameters)
      parameters = optax.apply_updates(parameters, updates)
    assert np.exp(parameters['log_scale']) == pytest.approx(end, rel=1e-4)


@pytest.mark.parametrize('max_scale', [0.5, -1.0, np.nan])
def test_max_scale_below_one_is_an_error(max_scale):
  message = r'config\.optimizer\.max_scale = .*; use 1 or more, or 0 for no bound'
  with pytest.raises(ValueError, match=message):
    optimizer.make_optimizer(lambda step: 1.0, **FIELDS, max_scale=max_scale)


@pytest.mark.parametrize('layers', [3, 40])
def test_adafactor_updates_stacked_layers_like_separate_ones(layers):
  shapes = {'kernel': (48, 64), 'query': {'kernel': (48, 3, 33), 'bias': (3, 33)}, 'bias': (48,)}
  is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
  random = np.random.default_rng(0)

  def draw(shape):
    """Values whose magnitude differs by layer and by channel."""
    sizes = (random.lognormal(0, 2, (layers, *ones)) for ones in (len(shape) * [1], shape))
    values = random.normal(size=(layers, *shape)) * np.prod(np.broadcast_arrays(*sizes), axis=0)
    return np.float32(values)

  def updates_of(transform, parameters, gradients):
    update, state = jax.jit(transform.update), jax.jit(transform.init)(parameters)
    for gradient in gradients:
      updates, state = update(gradient, state, parameters)
    return jax.device_get(updates), state

  trees = [jax.tree.map(draw, shapes, is_leaf=is_shape) for _ in range(3)]
  axes = jax.tree.map(lambda shape: ('layers', *[None] * len(shape)), shapes, is_leaf=is_shape)
  fields = FIELDS | {'epsilon': 1e-30, 'clip_norm': None, 'name': 'adafactor'}
  one_layer, all_layers = (
    optimizer.make_optimizer(lambda step: 0.1, **fields, axes=given) for given in (None, axes)
  )
  stacked, state = updates_of(all_layers, trees[0], trees[1:])
  for layer in range(layers):
    parameters, *gradients = jax.tree.map(operator.itemgetter(layer), trees)
    separate, _ = updates_of(one_layer, parameters, gradients)
    ours = jax.tree.map(operator.itemgetter(layer), stacked)
    chex.assert_trees_all_close(ours, separate, rtol=1e-4, atol=1e-6)
  # Row statistics per layer, and placeholders.
  assert {leaf.shape for leaf in jax.tree.leaves(state[1][0].v_row)} == {
    (layers, 48),
    (layers, 3, 33),
    (1,),
  }


@pytest.mark.parametrize('rates', [(), (('text/.*', 0.0),)])
def test_a_config_applies_adafactor_per_layer(rates):
  overrides = {'optimizer.name': 'adafactor', 'model.image.layers': 40, 'model.image.scan': True}
  run = build.build(config(**overrides, mesh='data:4,fsdp:2', **{'optimizer.rates': rates}))
  is_factored = lambda node: isinstance(node, optax.FactoredState)  # noqa: E731
  nodes = jax.tree.leaves(run.abstract_state.optimizer_state, is_leaf=is_factored)
  (factored,) = filter(is_factored, nodes)
  for statistics in (factored.v_row, factored.v_col, factored.v):
    shapes = [leaf.shape for leaf in jax.tree.leaves(statistics['image']['transformer']['blocks'])]
    assert (1,) in shapes and all(shape == (1,) or shape[0] == 40 for shape in shapes)
    assert (40,) not in shapes


def test_adafactor_normalizes_a_rank_one_gradient_like_adam():
  row, column = (np.random.default_rng(i).normal(size=size) for i, size in enumerate((40, 64)))
  gradient = {'kernel': jnp.float32(np.outer(row, column))}
  fields = FIELDS | {'b1': 0.0, 'weight_decay': 0.0, 'epsilon': 1e-30, 'clip_norm': None}
  transform = optimizer.make_optimizer(lambda step: 0.1, **fields, name='adafactor')
  state, update = transform.init(gradient), jax.jit(transform.update)
  # The second moment is factored; the first moment is a full matrix.
  assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 40 * 64 + 40 + 64 + 10
  for factor in (1.0, 3.0, 2.0):
    updates, state = update({'kernel': factor * gradient['kernel']}, state, gradient)
    size = np.abs(updates['kernel'])
    np.testing.assert_array_equal(np.sign(updates['kernel']), -np.sign(gradient['kernel']))
    np.testing.assert_allclose(size, size[0, 0], rtol=1e-4)
  assert 0.05 < size[0, 0] < 0.2


def test_adafactor_replicates_factored_moments_and_shards_the_rest():
  devices = mesh.make_mesh('data:4,fsdp:2')
  axes = {'kernel': ('embed', 'mlp'), 'bias': ('mlp',)}
  definition = Definition(
    init=lambda key: {'kernel': jax.random.normal(key, (32, 64)), 'bias': jnp.zeros(64)},
    bind=None,
    axes=axes,
  )
  transform = optimizer.make_optimizer(lambda step: 0.1, **FIELDS, name='adafactor')
  create, abstract = plan_state(definition, transform, devices, {'embed': 'fsdp', 'mlp': 'fsdp'})
  state = create(0)
  chex.assert_trees_all_equal_shapes(state, abstract)
  shards = {
    leaf.shape: leaf.sharding.spec
    for leaf in jax.tree.leaves(state.optimizer_state)
    if leaf.ndim and leaf.size > 1
  }
  assert shards[(32, 64)] == jax.P('fsdp', None)
  assert shards[(32,)] == jax.P()


def test_unknown_names_are_errors():
  with pytest.raises(ValueError, match=r"config\.optimizer\.name = 'adam'.*adafactor"):
    optimizer.make_optimizer(lambda step: 1.0, **FIELDS, name='adam')
  with pytest.raises(ValueError, match=r"config\.optimizer\.decay = 'step'.*linear"):
    optimizer.make_schedule(learning_rate=1.0, warmup_fraction=0.1, total_steps=9, decay='step')


def test_invalid_warmup_is_an_error():
  with pytest.raises(ValueError, match=r'config\.optimizer\.warmup_fraction = 1'):
    optimizer.make_schedule(learning_rate=1.0, warmup_fraction=1, total_steps=2)
