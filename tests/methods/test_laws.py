"""Laws that hold for every method of the registry, without a line from its author."""

import functools
import math
import re

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from contrastive_jax.data.images import normalize
from contrastive_jax.planning import traced_flops
from contrastive_jax.planning.loss import loss_gradient
from contrastive_jax.training import build
from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.forward import with_texts
from tests.methods import laws

KINDS = laws.one_per_kind()
OTHERS = tuple(name for name in laws.NAMES if name not in KINDS)


def difference(tree, expected) -> float:
  """The largest distance of two tensors of the same path, relative to the largest norm."""
  largest = max(np.linalg.norm(leaf) for leaf in jax.tree.leaves(expected))
  apart = jax.tree.map(lambda a, b: np.linalg.norm(np.float64(a) - b) / largest, tree, expected)
  return max(jax.tree.leaves(apart))


def assert_alike(found, expected):
  """Value, gradient and memory agree after a step."""
  (state, metrics), (other, others) = found, expected
  for name, value in others.items():
    assert metrics[name] == pytest.approx(float(value), rel=1e-5, abs=1e-6), name
  assert difference(laws.gradient_of(state), laws.gradient_of(other)) < 1e-5
  chex.assert_trees_all_close(state.memory, other.memory, rtol=1e-4, atol=1e-5)


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  ('names', 'mesh', 'devices', 'micro_batches'),
  [
    slow(OTHERS, 'data:1', 1, 4),
    (KINDS, 'data:2,fsdp:2,tensor:2', 8, 4),  # mesh and parts in one program
    slow(KINDS, 'data:8', 8, 1),
    slow(laws.MASKED, 'data:2,fsdp:2,tensor:2', 8, 4),
    slow(laws.NAMES, 'data:1', 1, 4),
    slow(laws.NAMES, 'data:8', 8, 1),
    slow(laws.NAMES, 'data:2,fsdp:2,tensor:2', 8, 4),
  ],
)
def test_parts_and_mesh_keep_value_gradient_and_memory(names, mesh, devices, micro_batches):
  if micro_batches > 1:
    names = tuple(name for name in names if 'parts' not in laws.method_of(name).exempt)
  found = laws.stepped(names, mesh=mesh, devices=devices, micro_batches=micro_batches)
  assert_alike(found, laws.stepped(names))


@pytest.mark.slow
def test_selections_have_a_margin():
  """Otherwise rounding could select other negatives in another number of parts."""
  run = laws.run_of(OTHERS)
  batch = with_texts(laws.batch_of(run))
  model = run.definition.bind(laws.initial(OTHERS).parameters)
  outputs = model.encode(batch | {'image': normalize(batch['image'])})
  scores = outputs.scale * outputs.image @ outputs.text.T
  k = laws.options_of('hard_negative')['k']
  for rows in (scores, scores.T):
    negatives = np.sort(np.where(np.eye(laws.B, dtype=bool), -np.inf, rows))[:, ::-1]
    assert np.min(negatives[:, k - 1] - negatives[:, k]) > 1e-3


@pytest.mark.parametrize(
  'names', [KINDS, slow(OTHERS), slow(laws.MASKED)], ids=['kinds', 'others', 'masked']
)
def test_every_method_moves_the_model_and_its_heads(names):
  state, _ = laws.stepped(names)
  gradient = laws.gradient_of(state)
  for name, heads in gradient.get('heads', {}).items():
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(heads)) > 0, name


@pytest.mark.parametrize(
  'names',
  [KINDS, OTHERS, laws.MASKED, slow(laws.NAMES)],
  ids=['kinds', 'others', 'masked', 'all'],
)
def test_the_step_of_all_methods_traces(names):
  run = laws.run_of(names)
  state, metrics = jax.eval_shape(run.train_step, run.abstract_state, run.abstract_batch)
  chex.assert_trees_all_equal_shapes_and_dtypes(state, run.abstract_state)
  assert all(any(metric.startswith(name) for metric in metrics) for name in names)


@pytest.mark.parametrize(
  'names', [KINDS, slow(OTHERS), slow(laws.MASKED)], ids=['kinds', 'others', 'masked']
)
def test_targets_start_as_copies_of_model_and_heads(names):
  state = laws.initial(names)
  assert state.targets
  for target in state.targets.values():
    chex.assert_trees_all_equal(target, state.trained)


@pytest.mark.parametrize('names', [KINDS, slow(laws.MASKED)], ids=['kinds', 'masked'])
def test_killed_is_never_killed(names, tmp_path):
  run = laws.run_of(names)
  through, _ = laws.stepped(names, steps=3)
  state = laws.place(laws.initial(names), run)
  for step in range(2):
    state, _ = run.train_step(state, laws.batch_of(run, step))
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state, {})
  checkpoints.wait()
  state, _ = checkpoints.restore(run.abstract_state)
  checkpoints.close()
  state, _ = run.train_step(state, laws.batch_of(run, 2))
  chex.assert_trees_all_equal(jax.device_get(state), through)


def test_a_bad_step_leaves_all_but_its_number():
  run = laws.run_of(KINDS)
  state, _ = laws.stepped(KINDS)
  nothing = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), state.parameters)
  broken = state.replace(parameters=nothing)
  after, metrics = jax.device_get(run.train_step(laws.place(broken, run), laws.batch_of(run, 1)))
  assert metrics['bad']
  chex.assert_trees_all_equal(after, broken.replace(step=broken.step + 1))


# Batches that are compared; also that of the FLOPs, so that one trace serves both laws.
BATCHES = 2048, 4096


@functools.cache
def gradient_of(name: str, batch_size: int):
  """A run of a method alone, and the gradient of its loss with its arguments, as shapes."""
  config = ConfigDict(laws.config_of((name,)).to_dict())
  config.batch_size = batch_size
  options = config.objective[name]
  if isinstance(options, ConfigDict) and 'length' in options:
    options.length = 4096  # of a queue, which holds whole batches of all sizes here
  run = build.build(config, jax.devices()[:1])
  return run, *loss_gradient(run)


CASES = [
  pytest.param(name, marks=() if name in KINDS else pytest.mark.slow)
  for name in (*laws.NAMES, *laws.MASKED)
]


@pytest.mark.parametrize('name', CASES)
def test_flops_are_those_of_the_program(name):
  run, gradient, arguments = gradient_of(name, BATCHES[0])
  counted = traced_flops.traced(gradient, *arguments).total
  assert run.objective.flops(run.sizes) == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize('name', CASES)
def test_temporaries_are_affine_in_the_batch(name):
  """Of the loss and its gradient; state that lives between steps is an argument."""
  if (reason := laws.method_of(name).exempt.get('memory')) is not None:
    pytest.skip(reason)
  memory, largest = [], []
  for size in BATCHES:
    _, gradient, arguments = gradient_of(name, size)
    compiled = gradient.lower(*arguments).compile()
    memory.append(compiled.memory_analysis().temp_size_in_bytes)
    largest.append(largest_buffer(compiled.as_text()))
  # The peak may move from one place to another, such as from blocks of scores to a head, so the
  # bound is on the sizes rather than their differences. A matrix of all pairs grows by 4.
  assert memory[1] <= 2.2 * memory[0], memory
  assert largest[1] <= 2.2 * largest[0], largest


def largest_buffer(program: str) -> int:
  """Elements of the largest array of a compiled program."""
  shapes = re.findall(r'\b(?:f32|bf16|s32|u32|pred)\[([\d,]+)\]', program)
  return max(math.prod(map(int, shape.split(','))) for shape in shapes)
