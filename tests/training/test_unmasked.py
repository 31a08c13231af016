"""The last steps of a run with patch dropout see all patches (FLIP)."""

import chex
import jax
import pytest

from configs import clip
from configs.methods import flip
from contrastive_jax import data
from contrastive_jax.planning import costs, plan
from contrastive_jax.planning.topology import open_topology
from contrastive_jax.training import build, flops, loop


def config(**overrides):
  made = flip.get_config('smoke')
  made.data.split = 'heldout_composition'
  made.update(total_steps=4, unmasked_fraction=0.5, checkpoint_every=1, evaluate_every=100)
  made.update_from_flattened_dict(overrides)
  return made


@pytest.fixture(scope='module')
def run():
  return build.build(config(), jax.devices()[:1])


@pytest.fixture(scope='module')
def source():
  return data.open_source('emoji', 'heldout_composition')


def train(run, folder, source, kill_before=None):
  """Trains; returns the final state, and whether each step was masked."""
  masked = []

  def watched(step, is_masked):
    def take(state, batch):
      if int(state.step) + 1 == kill_before:
        raise KeyboardInterrupt
      masked.append(is_masked)
      return step(state, batch)

    return take

  last = run.unmasked._replace(train_step=watched(run.unmasked.train_step, False))
  run = run._replace(train_step=watched(run.train_step, True), unmasked=last)
  folder.mkdir(exist_ok=True)
  try:
    return loop.train(run, source, folder, lambda parameters: {}), masked
  except KeyboardInterrupt:
    return None, masked


@pytest.mark.slow
def test_a_run_that_is_killed_in_both_phases_ends_as_if_it_was_not(run, source, tmp_path):
  through, masked = train(run, tmp_path / 'through', source)
  assert masked == [True, True, False, False]
  assert train(run, tmp_path / 'killed', source, kill_before=2)[1] == [True]
  assert train(run, tmp_path / 'killed', source, kill_before=4)[1] == [True, False]
  state, masked = train(run, tmp_path / 'killed', source)
  assert masked == [False]
  chex.assert_trees_all_equal(state, through)


@pytest.mark.parametrize(
  ('fraction', 'steps', 'first'), [(0.1, 100, 91), (0.1, 4, 4), (0.01, 195, 194), (0.5, 2, 2)]
)
def test_the_last_share_of_the_steps_is_unmasked(run, fraction, steps, first):
  own = run._replace(config=config(unmasked_fraction=fraction, total_steps=steps))
  assert own.at(first - 1) is own
  assert own.at(first) is own.at(steps) is run.unmasked


def test_the_last_steps_are_those_of_a_run_without_dropout(run):
  assert run.unmasked.config.model.image.patch_dropout == 0
  chex.assert_trees_all_equal_shapes_and_dtypes(run.unmasked.abstract_state, run.abstract_state)
  own, last = (
    flops.analytic(each.config, each.abstract_state.parameters, each.objective, each.sizes)
    for each in (run, run.unmasked)
  )
  assert own['image'] < 0.6 * last['image'] and own['text'] == last['text']


def test_without_a_tail_all_steps_are_alike():
  run = build.build(config(unmasked_fraction=0.0), jax.devices()[:1])
  assert run.unmasked is None and run.at(4) is run


def test_a_tail_without_dropout_is_refused():
  made = clip.get_config('smoke')
  made.unmasked_fraction = 0.1
  with pytest.raises(ValueError, match=r'unmasked_fraction = 0\.1 .*patch_dropout = 0 drops none'):
    build.build(made)


@pytest.mark.slow
def test_a_plan_has_the_memory_of_the_last_steps():
  made = config(**{'batch_size': 256})
  planned = plan.plan(made, open_topology('cpu:1'), seconds=0)
  kinds, built = planned['memory']['kinds'], build.build(made, jax.devices()[:1])
  assert kinds['unmasked'] > 0
  assert sum(kinds.values()) == planned['needed_bytes']
  assert planned['needed_bytes'] == costs.total_bytes(costs.compile_step(built.unmasked).program)
