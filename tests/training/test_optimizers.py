"""Laws of every optimizer by name: stacked = unrolled, sharded = whole, resumed = uninterrupted."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import coca
from contrastive_jax.models.definition import Definition, define, define_from
from contrastive_jax.models.transformer import Transformer
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import optimizer
from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.rates import parameter_rates
from contrastive_jax.training.state import plan_state
from tests.doubles import slow_but

NAMES = sorted(optimizer.RULES)
FIELDS = {'b1': 0.9, 'b2': 0.98, 'epsilon': 1e-6, 'weight_decay': 0.2, 'clip_norm': None}
SCHEDULE = optimizer.make_schedule(
  learning_rate=0.1, warmup_fraction=0.25, total_steps=8, decay='wsd', cooldown_fraction=0.25
)


def draw(seed, tree):
  """A tree of normal numbers whose magnitude differs by leaf and by its first index."""
  random = np.random.default_rng(seed)

  def one(leaf):
    sizes = random.lognormal(0, 2, (*leaf.shape[:1], *[1] * (len(leaf.shape) - 1)))
    return np.float32(sizes * random.normal(size=leaf.shape))

  return jax.tree.map(one, tree)


def steps(transform, parameters, gradients):
  """The parameters after a step per gradient, and the state."""

  @jax.jit
  def step(parameters, state, gradient):
    updates, state = transform.update(gradient, state, parameters)
    return optax.apply_updates(parameters, updates), state

  state = jax.jit(transform.init)(parameters)
  for gradient in gradients:
    parameters, state = step(parameters, state, gradient)
  return parameters, state


@functools.cache
def transformer(scan):
  """Two layers whose matrices are large enough to be factored."""
  make = {'scan': scan, 'dtype': jnp.float32}
  return define_from(lambda key: Transformer(64, 2, 2, **make, rngs=nnx.Rngs(params=key)))


def stack(tree):
  """The tree of a scanned model, from that of an unrolled one."""
  if not isinstance(tree, dict):
    return tree
  if set(tree) == {0, 1}:
    return jax.tree.map(lambda *layers: np.stack(layers), tree[0], tree[1])
  return {name: stack(part) for name, part in tree.items()}


@pytest.mark.parametrize('name', slow_but(NAMES, 'lars', 'muon'))
def test_stacked_layers_are_updated_like_unrolled_ones(name):
  unrolled, scanned = transformer(False), transformer(True)
  shapes = unrolled.shapes
  trees = [draw(seed, shapes) for seed in range(3)]
  make = lambda axes: optimizer.make_optimizer(SCHEDULE, **FIELDS, name=name, axes=axes)  # noqa: E731
  apart, _ = steps(make(unrolled.axes), trees[0], trees[1:])
  together, _ = steps(make(scanned.axes), stack(trees[0]), [stack(tree) for tree in trees[1:]])
  chex.assert_trees_all_close(together, stack(apart), rtol=1e-4, atol=1e-5)


AXES = {
  'up': {'kernel': ('embed', 'mlp'), 'bias': ('mlp',)},
  'down': {'kernel': ('mlp', 'embed'), 'bias': ('embed',)},
  'embed': {'embedding': ('vocab', 'embed')},
  'dense': {'kernel': (None, None, 'channels', 'embed')},
  'per_channel': {'kernel': (None, None, None, 'embed')},
  'norm': {'scale': ('embed',)},
  'log_scale': (),
}
SIZES = {'embed': 16, 'mlp': 32, 'vocab': 24, 'channels': 5, None: 3}
SHAPES = jax.tree.map(
  lambda axes: jax.ShapeDtypeStruct([SIZES[axis] for axis in axes], jnp.float32),
  AXES,
  is_leaf=lambda node: isinstance(node, tuple),
)
DEFINITION = Definition(init=lambda key: draw(0, SHAPES), bind=None, axes=AXES)


def theirs(name):
  """What optax itself has of a name, for matrices; for Muon, see the next test."""
  decay = {'weight_decay': FIELDS['weight_decay']}
  if name == 'lion':
    return optax.lion(SCHEDULE, 0.9, 0.98, **decay, mask=optimizer.decays)
  if name == 'sgd':
    decayed = optax.add_decayed_weights(**decay, mask=optimizer.decays)
    return optax.chain(decayed, optax.trace(0.9), optax.scale_by_learning_rate(SCHEDULE))
  return optax.lars(
    *(SCHEDULE, 0.2, optimizer.decays),
    eps=1e-6,
    trust_ratio_mask=optimizer.decays,
    momentum=0.9,
  )


@pytest.mark.parametrize('name', ['lars', 'lion', 'sgd'])
def test_it_is_optaxs(name):
  trees = [draw(seed, SHAPES) for seed in range(4)]
  ours = optimizer.make_optimizer(SCHEDULE, **FIELDS, name=name, max_scale=0, axes=AXES)
  chex.assert_trees_all_close(
    steps(ours, trees[0], trees[1:])[0], steps(theirs(name), trees[0], trees[1:])[0], rtol=1e-5
  )


def test_muon_is_optaxs_for_hidden_matrices_and_adamw_for_the_rest():
  trees = [draw(seed, SHAPES) for seed in range(4)]
  fields = {'name': 'muon', 'max_scale': 0, 'axes': AXES}
  ours, _ = steps(optimizer.make_optimizer(SCHEDULE, **FIELDS, **fields), trees[0], trees[1:])
  muon = optax.contrib.muon(SCHEDULE, weight_decay=0.2, consistent_rms=0.2)
  # A convolution is the matrix from the features of all its places.
  flat = lambda kernel: kernel.reshape(-1, kernel.shape[-1])  # noqa: E731
  names = ('up', 'down', 'dense')
  kernels = [{name: flat(tree[name]['kernel']) for name in names} for tree in trees]
  expected, _ = steps(muon, kernels[0], kernels[1:])
  for name, kernel in expected.items():
    np.testing.assert_allclose(flat(ours[name]['kernel']), kernel, rtol=1e-5, atol=1e-6)
  adamw = optimizer.make_optimizer(SCHEDULE, **FIELDS, max_scale=0, axes=AXES)
  others, _ = steps(adamw, trees[0], trees[1:])
  for tree in (ours, others):
    for name in names:
      del tree[name]['kernel']
  chex.assert_trees_all_close(ours, others, rtol=1e-6)


def test_muons_matrices_are_those_of_hidden_layers():
  config = coca.get_config('smoke')
  with config.unlocked():
    config.model.decoder.scan = True
  definition = define(**config.model.to_dict())
  axes = definition.axes | {'heads': {'slip': {'kernel': ('embed', 'mlp')}}}
  found = optimizer.hidden_matrices(axes)
  shapes = definition.shapes
  names = {jax.tree_util.keystr(path, simple=True, separator='/'): path for path in found}
  hidden = re.compile(
    r'((image|text|decoder)/transformer/blocks/.*|(contrastive_)?pooler)/?'
    r'(attention/(query|key_value|out)|mlp/(up|down))/kernel'
    r'|image/stem/(convolutions/[1-9]|blocks/\d+/\d+/(first|second))/kernel'
  )
  assert names and all(map(hidden.fullmatch, names)), sorted(names)
  leaves = dict(jax.tree_util.tree_leaves_with_path(shapes))
  for name, path in names.items():
    sides, shape = found[path], leaves[path].shape
    used = {*sides.reduction_axis, *sides.output_axis}
    others = [size for axis, size in enumerate(shape) if axis not in used]
    # Layers of a scanned decoder, and keys and values, are matrices of their own.
    assert others == [1] * name.startswith('decoder') + [2] * ('key_value' in name), name
  assert sum('decoder' in name and 'key_value' in name for name in names) == 2


def test_muon_orthogonalizes_each_matrix_by_itself():
  definition = transformer(True)
  shapes = definition.shapes
  parameters, gradient = draw(0, shapes), draw(1, shapes)
  fields = FIELDS | {'weight_decay': 0.0, 'name': 'muon', 'axes': definition.axes}
  transform = optimizer.make_optimizer(lambda step: 1.0, **fields)
  update = jax.jit(lambda g, p: transform.update(g, transform.init(p), p)[0])
  updates = jax.device_get(update(gradient, parameters))
  blocks = updates['blocks']
  key_value = blocks['attention']['key_value']['kernel']  # [layers, embed, 2, heads, head]
  by_matrix = np.moveaxis(key_value, 2, 1).reshape(4, 64, 64)
  out = blocks['attention']['out']['kernel'].reshape(2, 64, 64)  # [layers, heads, head, embed]
  for matrix in (*by_matrix, *out):
    values = np.linalg.svd(matrix / (0.2 * 8), compute_uv=False)
    assert np.median(values) == pytest.approx(0.9, abs=0.3) and values.max() < 1.3


def test_muon_without_a_hidden_matrix_is_an_error():
  axes = {'kernel': (None, None, None, 'embed')}
  with pytest.raises(ValueError, match=r"name = 'muon', and the model has no attention and no MLP"):
    optimizer.make_optimizer(SCHEDULE, **FIELDS, name='muon', axes=axes)


@pytest.mark.parametrize('name', NAMES)
def test_frozen_parameters_have_no_update_and_no_state(name):
  rates = parameter_rates(DEFINITION, (('(up|embed)/.*', 0.0), ('down/.*', 0.5)))
  make = lambda rates: optimizer.make_optimizer(  # noqa: E731
    SCHEDULE, **FIELDS, name=name, axes=AXES, rates=rates
  )
  parameters = draw(0, SHAPES)
  gradient = draw(1, SHAPES)
  frozen = {key: jax.tree.map(np.zeros_like, gradient[key]) for key in ('up', 'embed')}
  gradients = [gradient | frozen] * 2
  trained, state = steps(make(rates), parameters, gradients)
  whole, _ = steps(make(None), parameters, gradients)
  for part in ('up', 'embed'):
    chex.assert_trees_all_equal(trained[part], parameters[part])
  moved = lambda tree: jax.tree.map(np.subtract, tree['norm'], parameters['norm'])  # noqa: E731
  chex.assert_trees_all_close(moved(trained), moved(whole), rtol=1e-5)
  kept = [leaf.shape for leaf in jax.tree.leaves(state)]
  assert (16, 32) not in kept and (24, 16) not in kept


@pytest.mark.parametrize('name', slow_but(NAMES, 'adamw', 'muon'))
def test_sharded_and_resumed_equals_whole_and_uninterrupted(name, tmp_path):
  transform = optimizer.make_optimizer(SCHEDULE, **FIELDS, name=name, axes=AXES)
  rules = {'embed': 'fsdp', 'mlp': 'tensor'}
  create, abstract = plan_state(DEFINITION, transform, make_mesh('data:2,fsdp:2,tensor:2'), rules)
  gradients = [draw(seed, SHAPES) for seed in range(1, 9)]

  @jax.jit
  def step(state, gradient):
    updates, kept = transform.update(gradient, state.optimizer_state, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    return state.replace(step=state.step + 1, parameters=parameters, optimizer_state=kept)

  state = create(0)
  for leaf in jax.tree.leaves(state.optimizer_state):
    if leaf.shape == (16, 32):
      assert leaf.sharding.spec == jax.P('fsdp', 'tensor')
  for gradient in gradients[:4]:
    state = step(state, gradient)
  checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=1, best='', metrics={})
  checkpoints.save(state, {'row': {}})
  checkpoints.close()
  reopened = Checkpoints(tmp_path / 'checkpoints', keep=1, best='', metrics={})
  restored, _ = reopened.restore(abstract)
  reopened.close()
  chex.assert_trees_all_equal(restored, state)
  for gradient in gradients[4:]:
    restored = step(restored, gradient)
  whole, _ = steps(transform, draw(0, SHAPES), gradients)
  chex.assert_trees_all_close(jax.device_get(restored.parameters), whole, rtol=1e-4, atol=1e-5)
