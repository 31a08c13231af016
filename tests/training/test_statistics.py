"""A tower with batch statistics: a step moves the running ones, and an evaluation uses them."""

import functools

import jax
import numpy as np
import optax
import pytest

from configs import simclr
from contrastive_jax.methods import Objective
from contrastive_jax.models.definition import define, join_statistics
from contrastive_jax.planning import plan, table
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.rates import frozen_statistics
from contrastive_jax.training.state import plan_state
from contrastive_jax.training.step import jit_train_step, make_train_step
from tests.models.towers import drawn

B = 16
IMAGE = {'size': 8, 'patch': 4, 'width': 8, 'layers': 0, 'heads': 2, 'pooling': 'mean'}
IMAGE |= {'stem': 'convolution', 'stem_blocks': (0, 1), 'stem_norm': 'batch', 'pre_norm': False}
PATH = 'image', 'stem', 'blocks', 1, 0, 'norm'


@functools.cache
def definition():
  return define('encoder', embed=8, image=IMAGE)


def images():
  return np.random.default_rng(0).normal(2, 3, size=(B, 8, 8, 3)).astype(np.float32)


def at(tree, *path):
  return functools.reduce(lambda node, key: node[key], path, tree)


@functools.cache
def stepped(devices=1, micro_batches=1):
  """The state before and after a step of one view, and the metrics."""
  mesh = make_mesh(f'data:{devices}', jax.devices()[:devices])
  optimizer = optax.sgd(0.1)
  create, abstract = plan_state(definition(), optimizer, mesh, {}, averaged=True)
  step = make_train_step(
    definition(),
    Objective({'supervised': 1.0}, mesh if devices > 1 else None),
    optimizer,
    mesh,
    average_decay=0.9,
    micro_batches=micro_batches,
  )
  state = create(0)
  before = jax.device_get(state)
  batch = {'image': images(), 'labels': np.arange(B, dtype=np.int32) % 3}
  after, metrics = jit_train_step(step, abstract, mesh)(state, batch)
  return before, jax.device_get(after), jax.device_get(metrics)


def inner(state):
  """What reaches the norm, from the parameters of a state."""

  @jax.jit
  def convolved(parameters, images):
    first, second = definition().bind(parameters).image.stem.convolutions
    return second(jax.nn.gelu(first(images), approximate=False))

  return convolved(state.evaluated, images())


def test_a_step_moves_the_running_statistics_by_its_own():
  before, after, _ = stepped()
  x = np.asarray(inner(before), np.float64)
  own = at(after.statistics, *PATH)
  np.testing.assert_allclose(own['mean'], 0.1 * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(own['variance'], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-4)
  assert set(at(after.parameters, *PATH)) == {'scale', 'bias'}


def test_micro_batches_normalize_by_their_own_and_move_the_running_ones_by_the_mean():
  before, whole, _ = stepped()
  _, after, _ = stepped(micro_batches=4)
  parts = np.asarray(inner(before), np.float64).reshape(4, -1, 8)
  own = at(after.statistics, *PATH)
  np.testing.assert_allclose(own['mean'], at(whole.statistics, *PATH)['mean'], rtol=1e-4, atol=1e-6)
  # The variance within parts is less than that of the whole.
  np.testing.assert_allclose(own['variance'], 0.9 + 0.1 * parts.var(1, ddof=1).mean(0), rtol=1e-4)


def test_devices_share_the_statistics():
  one, eight = stepped(), stepped(devices=8)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    (one[1].statistics, one[1].parameters, one[2]['loss']),
    (eight[1].statistics, eight[1].parameters, eight[2]['loss']),
  )


FROZEN, ROWS = (('image/.*', 0.0),), 12


@functools.cache
def frozen_step(rates, micro_batches):
  """A function from statistics to the loss and the statistics after a step."""
  fixed = frozen_statistics(definition(), rates)
  model = definition()._replace(frozen_statistics=fixed)
  mesh, optimizer = make_mesh('data:1', jax.devices()[:1]), optax.sgd(0.1)
  create, abstract = plan_state(model, optimizer, mesh, {})
  step = make_train_step(
    model, Objective({'supervised': 1.0}, None), optimizer, mesh, micro_batches=micro_batches
  )
  jitted = jit_train_step(step, abstract, mesh)
  labels = np.arange(ROWS, dtype=np.int32) % 3
  batch = {'image': images()[:ROWS], 'labels': labels}

  def run(shift):
    state = create(0)
    state = state.replace(statistics=jax.tree.map(lambda a: a + shift, state.statistics))
    before = jax.device_get(state.statistics)
    after, metrics = jitted(state, batch)
    return before, jax.device_get(after.statistics), float(metrics['loss'])

  return run


@pytest.mark.parametrize('micro_batches', [1, 3])
def test_frozen_statistics_stay_and_normalize(micro_batches):
  run = frozen_step(FROZEN, micro_batches)
  losses = []
  for shift in (1.3, 2.6):
    before, after, loss = run(shift)
    # Bit for bit: the mean over three micro-batches would round.
    jax.tree.map(np.testing.assert_array_equal, before, after)
    losses.append(loss)
  assert abs(losses[0] - losses[1]) > 1e-4


def test_a_pattern_leaves_the_statistics_of_a_frozen_tower_moving():
  run = frozen_step((('.*/(mean|variance)', 1.0), *FROZEN), 1)
  (before, after, loss), (_, _, other) = run(1.3), run(2.6)
  assert np.abs(at(before, *PATH)['mean'] - at(after, *PATH)['mean']).max() > 1e-3
  assert loss == other


def test_what_is_evaluated_has_the_running_statistics():
  _, after, _ = stepped()
  assert at(after.evaluated, *PATH)['mean'] is at(after.statistics, *PATH)['mean']
  shapes = definition().shapes
  assert jax.tree.structure(shapes) == jax.tree.structure(after.evaluated)


def test_evaluation_is_by_the_running_statistics_and_leaves_them():
  parameters = drawn(definition())
  trained, statistics = definition().part(parameters)
  encode = jax.jit(lambda parameters, images: definition().bind(parameters).encode_image(images))
  moved = join_statistics(trained, jax.tree.map(lambda a: np.abs(a) + 1, statistics))
  whole = np.asarray(encode(moved, images()))
  alone = [encode(moved, images()[row : row + 1]) for row in range(2)]
  np.testing.assert_allclose(whole[:2], np.concatenate(alone), atol=1e-5)
  other = join_statistics(trained, jax.tree.map(lambda a: a + 9, statistics))
  assert np.abs(encode(other, images()) - whole).max() > 1e-3


def test_the_plan_says_how_many_examples_share_statistics():
  config = simclr.get_config('smoke')
  config.micro_batches = 2
  plain = define(**config.model.to_dict())
  assert plan.normalized_together(config, plain) == 0
  assert plan.normalized_together(config, definition()) == 8
  frozen = definition()._replace(frozen_statistics=definition().statistics)
  assert plan.normalized_together(config, frozen) == 0
  figures = {'needed_bytes': 1, 'available_bytes': 2, 'mesh': {'data': 1, 'fsdp': 1, 'tensor': 1}}
  figures |= {'config': 'simclr:smoke', 'batch_size': 16, 'topology': 'cpu:1', 'chip': 'CPU'}
  figures |= {'settings': [], 'fastest': None}
  said = table.verdict(figures | {'simulated': True, 'fits': True, 'normalized_together': 8})
  assert 'each micro-batch, 8 examples, by its own statistics' in said


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'stem': 'patch', 'stem_blocks': None},
      "stem_norm = 'batch' needs image.stem = 'convolution'",
    ),
    ({'stem_blocks': None}, r"stem_norm = 'batch' is of the residual blocks.* such as \(0, 1\)"),
    ({'stem_norm': 'group'}, "stem_norm = 'group'"),
  ],
)
def test_a_norm_without_a_place_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    define('encoder', embed=8, image=IMAGE | fields)
