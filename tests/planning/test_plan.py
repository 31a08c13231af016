import importlib.util
import json

import jax
import pytest

from configs import clip, coca
from contrastive_jax.planning import plan, table, topology
from contrastive_jax.training import build


def config(recipe=clip, **overrides):
  """A small config that compiles fast."""
  made = recipe.get_config('smoke')
  with made.unlocked():
    made.model.image.update({'stem': 'patch', 'stem_blocks': None})
    made.update_from_flattened_dict(overrides)
  return made


@pytest.fixture(scope='module')
def planned():
  return plan.plan(config(coca, mesh='data:2,fsdp:4'), topology.open_topology('h100:8'))


def test_kinds_of_memory_add_up_to_the_total_of_the_compiler(planned):
  compiled, _ = plan._compile(build.build(config(coca, mesh='data:2,fsdp:4')))
  kinds = planned['memory']['kinds']
  assert sum(kinds.values()) == plan._total_bytes(compiled) == planned['needed_bytes']
  assert min(kinds.values()) >= 0
  assert 0 < planned['memory']['loss'] < planned['needed_bytes']


def test_every_parameter_is_listed_with_its_sharding(planned):
  rows = {row['name']: row for row in planned['parameters']}
  assert sum(row['bytes'] for row in rows.values()) == planned['memory']['kinds']['parameters']
  embedding = rows['text/embed/embedding']
  assert embedding['axes'] == [None, 'fsdp'] and embedding['bytes'] == 4096 * 32 * 4 / 4
  assert rows['log_scale'] | {'bytes': 4, 'axes': [], 'shape': []} == rows['log_scale']


def test_bytes_of_the_batch_include_all_its_arrays(planned):
  one = 40 * 40 * 3 + 4 * 16 + 4 + 4  # image, tokens, same, id
  assert planned['memory']['kinds']['batch'] == 16 // 8 * one


def test_step_times_are_the_maximum_and_the_sum_of_the_parts(planned):
  estimate = planned['estimate']
  parts = [estimate[f'{part}_seconds'] for part in ('compute', 'memory', 'interconnect')]
  assert estimate['step_seconds_overlapped'] == max(parts) > 0
  assert estimate['step_seconds_in_turn'] == sum(parts)
  assert 0 < estimate['utilisation_in_turn'] < estimate['utilisation_overlapped'] <= 1
  assert planned['collectives']['all-gather']['count'] > 0


@pytest.mark.slow
def test_remat_has_fewer_residuals_and_more_flops():
  layers = {'model.image.layers': 3, 'model.text.layers': 3}
  plain, full = (
    build.build(config(**layers, **{'model.remat': remat})) for remat in ('none', 'full')
  )
  assert plan.residual_bytes(full) < 0.5 * plan.residual_bytes(plain)
  counted = plan._flops(full)
  assert counted['traced_without_remat'] == plan._flops(plain)['traced'] < counted['traced']


@pytest.mark.slow
def test_remedies_are_tried_for_a_config_that_does_not_fit(planned, monkeypatch):
  opened = topology.open_topology('a100:8')
  GiB = 2**30

  def refuse(described):
    """As if remat saved 1 GiB, FSDP 2, and gradient caching 4."""
    made = described.config
    needed = 86 - (made.model.remat == 'full') - 2 * ('fsdp' in made.mesh)
    return None, ((needed - 4 * (made.micro_batches > 1)) * GiB, 80 * GiB)

  monkeypatch.setattr(plan, '_compile', refuse)
  result = plan.plan(config(), opened)
  assert not result['fits'] and 'collectives' not in result
  over = {tuple(tried['names']): tried['over_bytes'] / GiB for tried in result['remedies']}
  remat, caching, fsdp = 'remat', 'gradient caching', 'FSDP'
  assert over == {(remat,): 5, (fsdp,): 4, (caching,): 2} | {
    pair: over[pair] for pair in over if len(pair) == 2
  }
  # Single remedies are tried before combinations, and the first combination that fits is the last.
  assert over[fsdp, caching] == 0 and len(result['remedies'][-1]['names']) == 2
  said = table.verdict(result)
  assert 'needs 86.00 GiB per device, 6.00 GiB over 80.00 GiB' in said
  assert '--config.mesh=data:1,fsdp:8 --config.micro_batches=2): it fits' in said
  assert all(tried['fits'] is None for tried in plan.plan(config(), opened, seconds=0)['remedies'])


def test_run_prints_and_writes_the_plan(tmp_path, capsys):
  result = plan.run(config(), 'cpu:8', tmp_path / 'new')
  assert json.loads((tmp_path / 'new' / 'plan_cpu_8.json').read_text()) == result
  printed = capsys.readouterr().out
  for words in ('image/stem/embed/kernel', 'activations', 'traced to analytic', 'fits'):
    assert words in printed
  assert 'estimate' not in result


ADDED = (
  'Ran out of memory on HBM, the total memory required for HLO temporaries (34.52G) exceeds '
  'available HBM (15.75G).'
)
USED = (
  'XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 34.52G of 15.75G '
  'hbm. Exceeded hbm capacity by 18.77G.'
)


@pytest.mark.parametrize('message', [ADDED, USED])
def test_out_of_memory_errors_are_parsed(message):
  class Refused:
    def compile(self):
      raise jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {message}')

  class Step:
    def lower(self, *_):
      return Refused()

  run = build.build(config())._replace(train_step=Step())
  compiled, (needed, available) = plan._compile(run)
  arguments = plan._device_bytes(run.abstract_state) + plan._batch_bytes(run)
  assert compiled is None and available == 15.75 * 2**30
  assert needed == 34.52 * 2**30 + (arguments if message == ADDED else 0)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs libtpu')
def test_the_tpu_compiler_decides_what_fits():
  fitting = config(batch_size=64, mesh='data:4,fsdp:4')
  result = plan.plan(fitting, topology.open_topology('v5e:4x4'))
  assert result['fits'] and result['estimate']['step_seconds_overlapped'] > 0
  assert result['collectives']['collective-permute']['count'] >= 16
  large = clip.get_config('vit_b16')
  result = plan.plan(large, topology.open_topology('v5e:4x4'), seconds=0)
  assert not result['fits'] and result['needed_bytes'] > result['available_bytes']
