import importlib.util
import json

import jax
import pytest

from configs import clip, coca
from contrastive_jax.sharding import topology
from contrastive_jax.training import plan, plan_table


def config(recipe=clip, variant='smoke', **overrides):
  made = recipe.get_config(variant)
  made.update_from_flattened_dict(overrides)
  return made


@pytest.fixture(scope='module')
def planned():
  made = config(coca, mesh='data:2,fsdp:4')
  return plan.plan(made, topology.open_topology('h100:8'))


def test_the_kinds_of_memory_add_up_to_the_compilers(planned):
  described = plan.loop.build(config(coca, mesh='data:2,fsdp:4'))
  compiled, _ = plan._compile(described)
  kinds = planned['memory']['kinds']
  assert sum(kinds.values()) == plan._total(compiled) == planned['needed_bytes']
  assert min(kinds.values()) >= 0
  assert 0 < planned['memory']['loss'] < planned['needed_bytes']


def test_every_parameter_has_a_place(planned):
  rows = {row['name']: row for row in planned['parameters']}
  assert sum(row['bytes'] for row in rows.values()) == planned['memory']['kinds']['parameters']
  cut = rows['text/embed/embedding']
  assert cut['axes'] == [None, 'fsdp'] and cut['bytes'] == 4096 * 32 * 4 / 4
  assert rows['log_scale'] | {'bytes': 4, 'axes': [], 'shape': []} == rows['log_scale']


def test_a_batch_of_all_that_the_pipeline_gives(planned):
  one = 40 * 40 * 3 + 4 * 16 + 2 * 4
  assert planned['memory']['kinds']['batch'] == 16 // 8 * one


def test_the_estimate_says_what_bounds_it(planned):
  estimate = planned['estimate']
  parts = [estimate[f'{part}_seconds'] for part in ('compute', 'memory', 'interconnect')]
  assert estimate['step_seconds_overlapped'] == max(parts) > 0
  assert estimate['step_seconds_in_turn'] == sum(parts)
  assert 0 < estimate['utilisation_in_turn'] < estimate['utilisation_overlapped'] <= 1
  assert planned['collectives']['collective-permute']['count'] > 0


def test_remat_keeps_less_and_computes_more(planned):
  layers = {'model.image.layers': 4, 'model.text.layers': 4, 'batch_size': 64}
  plain, full = (
    plan.loop.build(config(**layers, **{'model.remat': remat})) for remat in ('none', 'full')
  )
  assert plan.kept_bytes(full) < 0.5 * plan.kept_bytes(plain)
  figures = plan._flops(full)
  assert figures['traced_without_remat'] == plan._flops(plain)['traced'] < figures['traced']


def test_it_says_by_how_much_it_does_not_fit_and_what_would_help(planned):
  made = config(
    batch_size=256, **{'model.image.layers': 8, 'model.text.layers': 4, 'model.image.scan': True}
  )
  opened = topology.open_topology('a100:8')
  needed = plan.plan(made, opened)['needed_bytes']
  tight = opened._replace(chip=opened.chip._replace(memory=0.6 * needed))
  figures = plan.plan(made, tight)
  assert not figures['fits'] and figures['needed_bytes'] == needed
  remedies = {tuple(remedy['names']): remedy for remedy in figures['remedies']}
  assert remedies.keys() >= {('remat',), ('FSDP',), ('gradient caching',)}
  assert any(remedy['fits'] for remedy in remedies.values())
  said = plan_table.verdict(figures)
  assert 'does not fit' in said and '--config.model.remat=full' in said and 'it fits' in said
  assert all(remedy['fits'] is None for remedy in plan.plan(made, tight, seconds=0)['remedies'])


def test_run_prints_and_writes(tmp_path, capsys):
  figures = plan.run(config(), 'cpu:8', tmp_path / 'new')
  assert json.loads((tmp_path / 'new' / 'plan_cpu_8.json').read_text()) == figures
  printed = capsys.readouterr().out
  for words in ('image/stem/convolutions/0/kernel', 'activations', 'traced to analytic', 'fits'):
    assert words in printed
  assert 'estimate' not in figures


MESSAGES = {
  'Ran out of memory on HBM, the total memory required for HLO temporaries (34.52G) exceeds '
  'available HBM (15.75G).': (34.52, 15.75),
  'XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.22G of 15.75G '
  'hbm. Exceeded hbm capacity by 1.47G.': (17.22, 15.75),
}


@pytest.mark.parametrize('message', MESSAGES)
def test_what_the_compiler_refuses_is_read(message):
  class Refused:
    def compile(self):
      raise jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {message}')

  class Step:
    def lower(self, *_):
      return Refused()

  run = plan.loop.build(config())._replace(train_step=Step())
  needed, available = MESSAGES[message]
  assert plan._compile(run) == (None, (needed * 2**30, available * 2**30))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs libtpu')
def test_a_tpus_compiler_gives_its_verdict():
  fitting = config(batch_size=64, mesh='data:4,fsdp:4')
  figures = plan.plan(fitting, topology.open_topology('v5e:4x4'))
  assert figures['fits'] and figures['estimate']['step_seconds_overlapped'] > 0
  assert figures['collectives']['collective-permute']['count'] >= 16
  large = config(variant='vit_b16', mesh='data:16', **{'data.tokenizer': 'clip'})
  figures = plan.plan(large, topology.open_topology('v5e:4x4'), seconds=0)
  assert not figures['fits'] and figures['needed_bytes'] > figures['available_bytes']
