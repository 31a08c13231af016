"""Micro-batches, rematerialization and the mesh change the cost of a step, never its result."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax.data.augmentation import augment
from contrastive_jax.data.images import normalize
from contrastive_jax.methods import METHODS, Objective
from contrastive_jax.methods.lift import stateless
from contrastive_jax.models.definition import define
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.optimizer import make_optimizer, make_schedule
from contrastive_jax.training.state import plan_state
from contrastive_jax.training.step import jit_train_step, make_train_step
from tests.models.towers import drawn

B, SIZE, LENGTH, VOCABULARY = 32, 16, 6, 40
AUGMENTATION = {'degrees': 20.0, 'zoom': 0.2, 'hue': 0.1, 'erase': 0.5}
SHARED = {'width': 16, 'heads': 2}
IMAGE = {'size': SIZE, 'patch': 4, 'patch_dropout': 0.5} | SHARED
TEXT = {'vocabulary': VOCABULARY, 'length': LENGTH} | SHARED
MODELS = {
  'clip': ({'name': 'clip'}, {'info_nce': 1.0}),
  'coca': (
    {'name': 'coca', 'queries': 3, 'pooler_heads': 2, 'decoder': {'layers': 2, 'heads': 2}},
    {'info_nce': 1.0, 'captioning': 2.0},
  ),
  'slip': ({'name': 'clip'}, {'info_nce': 1.0, 'nt_xent': {'weight': 1.0, 'scale': 10.0}}),
  'reweighted': ({'name': 'clip'}, {'reweighted_info_nce': {'weight': 1.0, 'temperature': 0.3}}),
}
VIEWS = {'slip': 2}


def batch():
  random = np.random.default_rng(0)
  lengths = random.integers(2, LENGTH + 1, (B, 1))
  tokens = random.integers(1, VOCABULARY, (B, LENGTH))
  return {
    'image': random.integers(0, 256, (B, SIZE, SIZE, 3), np.uint8),
    'tokens': np.where(np.arange(LENGTH) < lengths, tokens, 0).astype(np.int32),
  }


def make(name, shape='data:1', *, layers=1, scan=False, remat='none', optimizer=None, **options):
  """The jitted step, a function that makes its first state, and the state's shapes."""
  fields, weights = MODELS[name]
  image, text = (tower | {'layers': layers, 'scan': scan} for tower in (IMAGE, TEXT))
  definition = define(**fields, embed=16, image=image, text=text, remat=remat)
  size = math.prod(int(part.split(':')[1]) for part in shape.split(','))
  mesh = make_mesh(shape, jax.devices()[:size])
  optimizer = optimizer or optax.sgd(1.0)  # whose update is the gradient
  options.setdefault('views', VIEWS.get(name, 1))
  rules = {'embed': 'fsdp', 'mlp': 'tensor', 'heads': 'tensor'}
  _, abstract = plan_state(definition, optimizer, mesh, rules)

  def create():
    parameters = drawn(definition)
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), abstract)
    state = zeros.replace(
      parameters=parameters, optimizer_state=jax.jit(optimizer.init)(parameters)
    )
    return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), state, abstract)

  step = make_train_step(
    definition,
    Objective(weights, mesh if mesh.size > 1 else None),
    optimizer,
    mesh,
    preprocess=lambda keys, images: normalize(augment(keys, images, SIZE, AUGMENTATION)),
    **options,
  )
  return jit_train_step(step, abstract, mesh), create, abstract


@functools.cache
def stepped(name, *arguments, **options):
  step, create, _ = make(name, *arguments, **options)
  return jax.device_get(step(create(), batch()))


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  ('name', 'shape', 'options'),
  [
    ('clip', 'data:8', {'micro_batches': 4, 'remat': 'full'}),
    # Parts and meshes of all methods are in tests/methods/test_laws.py, without augmentation.
    slow('coca', 'data:2,fsdp:2,tensor:2', {'micro_batches': 2, 'remat': 'full'}),
    slow('clip', 'data:1', {'micro_batches': 4}),
    slow('coca', 'data:1', {'micro_batches': 2, 'remat': 'dots'}),
    slow('slip', 'data:2,fsdp:2,tensor:2', {'micro_batches': 2}),
    slow('reweighted', 'data:4', {'micro_batches': 2}),
  ],
)
def test_parts_remat_and_mesh_keep_loss_and_gradient(name, shape, options):
  """Also with patch dropout and augmentation: the second forward pass uses the same keys."""
  before, after = stepped(name), stepped(name, shape, **options)
  chex.assert_trees_all_close(before[1], after[1], rtol=1e-4)
  chex.assert_trees_all_close(before[0].parameters, after[0].parameters, rtol=1e-3, atol=2e-5)


def test_a_second_view_is_another_and_leaves_the_first(monkeypatch):
  def apart(image, second):
    return jnp.mean(jnp.sum((image - second) ** 2, -1))

  monkeypatch.setitem(METHODS, 'apart', stateless(apart, image='image', second='view.1'))
  monkeypatch.setitem(MODELS, 'two views', ({'name': 'clip'}, {'info_nce': 1.0, 'apart': 1.0}))
  _, metrics = stepped('two views', views=2)
  assert metrics['apart'] > 0.01
  assert metrics['info_nce'] == pytest.approx(stepped('clip')[1]['loss'], rel=1e-5)


def temporaries(**options):
  step, _, abstract = make('clip', layers=2, scan=True, **options)
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), batch())
  return step.lower(abstract, shapes).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_parts_and_remat_lower_memory():
  whole, parts = temporaries(), temporaries(micro_batches=8)
  assert parts < whole / 3
  full, dots = temporaries(remat='full'), temporaries(remat='dots')
  assert full < dots < whole


@functools.cache
def skipping():
  """A step that skips bad ones, and a function that makes its first state."""
  schedule = make_schedule(learning_rate=1e-2, warmup_fraction=0.01, total_steps=2000)
  fields = {'b1': 0.9, 'b2': 0.98, 'epsilon': 1e-6, 'weight_decay': 0.2, 'clip_norm': 1.0}
  optimizer = make_optimizer(schedule, **fields)
  return make('clip', optimizer=optimizer, skip_bad=True, spike=10.0)[:2]


def put(value, like):
  """The value where another lies: elsewhere, the step would compile again."""
  return jax.device_put(np.asarray(value, like.dtype), like.sharding)


@pytest.mark.parametrize('broken', ['not finite', 'spike'])
def test_a_bad_step_is_told_and_skipped(broken):
  step, create = skipping()
  state = create()
  for _ in range(2):
    state, metrics = step(state, batch())
    assert not metrics['bad']
  # As if the average had settled, on gradients that were smaller or finite.
  state = state.replace(step=put(1000, state.step))
  if broken == 'spike':
    state = state.replace(average_norm=put(metrics['gradient_norm'] / 20, state.average_norm))
  else:
    state.parameters['log_scale'] = put(np.nan, state.parameters['log_scale'])
  before = jax.device_get(state)
  after, metrics = jax.device_get(step(state, batch()))
  assert metrics['bad']
  chex.assert_trees_all_equal(after, before.replace(step=before.step + 1))


def test_skipped_steps_count_for_the_schedule_alone():
  """Adam's averages and the gradient norm's start at the first good step."""
  step, create = skipping()
  state = create()
  log_scale = jax.device_get(state.parameters['log_scale'])
  for _ in range(2):
    state.parameters['log_scale'] = put(np.nan, state.parameters['log_scale'])
    state, metrics = step(state, batch())
    assert metrics['bad']
  state.parameters['log_scale'] = put(log_scale, state.parameters['log_scale'])
  after, metrics = jax.device_get(step(state, batch()))
  assert not metrics['bad'] and after.average_norm == metrics['gradient_norm']

  is_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731
  advance = lambda node: node._replace(count=put(2, node.count)) if is_schedule(node) else node  # noqa: E731
  fresh = create()
  optimizer_state = jax.tree.map(advance, fresh.optimizer_state, is_leaf=is_schedule)
  fresh = fresh.replace(step=put(2, fresh.step), optimizer_state=optimizer_state)
  expected, _ = jax.device_get(step(fresh, batch()))
  chex.assert_trees_all_equal(after.parameters, expected.parameters)
  chex.assert_trees_all_equal(after.optimizer_state, expected.optimizer_state)
