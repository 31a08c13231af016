import importlib.util
import json
import time

import jax
import pytest
from ml_collections import ConfigDict

from configs import clip, coca, naflex
from contrastive_jax.planning import costs, loss, plan, search, table, topology, traced_flops
from contrastive_jax.training import build


def config(recipe=clip, **overrides):
  """A small config that compiles fast."""
  made = recipe.get_config('smoke')
  with made.unlocked():
    made.model.image.update({'stem': 'patch', 'stem_blocks': None})
    made.augmentation, made.data.size = ConfigDict(), made.model.image.size
    made.update_from_flattened_dict(overrides)
  return made


@pytest.fixture(scope='module')
def planned():
  return plan.plan(config(coca, mesh='data:2,fsdp:4'), topology.open_topology('h100:8'), seconds=0)


def test_kinds_of_memory_add_up_to_the_total_of_the_compiler(planned):
  compiled = costs.compile_step(build.build(config(coca, mesh='data:2,fsdp:4'))).program
  kinds = planned['memory']['kinds']
  assert sum(kinds.values()) == costs.total_bytes(compiled) == planned['needed_bytes']
  assert min(kinds.values()) >= 0
  assert 0 < planned['memory']['loss'] < planned['needed_bytes']


def test_every_parameter_is_listed_with_its_sharding(planned):
  rows = {row['name']: row for row in planned['parameters']}
  assert sum(row['bytes'] for row in rows.values()) == planned['memory']['kinds']['parameters']
  embedding = rows['text/embed/embedding']
  assert embedding['axes'] == [None, 'fsdp'] and embedding['bytes'] == 4096 * 32 * 4 / 4
  assert rows['log_scale'] | {'bytes': 4, 'axes': [], 'shape': []} == rows['log_scale']


def test_bytes_of_the_batch_include_all_its_arrays(planned):
  one = 32 * 32 * 3 + 4 * 16 + 4 + 4  # image, tokens, same, id
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
  assert costs.residual_bytes(full) < 0.5 * costs.residual_bytes(plain)
  counted = costs.all_flops(full)
  assert counted['traced_without_remat'] == costs.all_flops(plain)['traced'] < counted['traced']


GIB = 2**30
LAYERS = {'model.image.layers': 2, 'model.text.layers': 2}


def search_as_if(monkeypatch, needed, seconds, **options):
  """Searches as if settings needed `needed(setting)` GiB of 80, and took `seconds(setting)`."""
  program = jax.jit(lambda: 0.0).lower().compile()

  def compile_step(built):
    size = needed(built.config) * GIB
    return costs.Compiled(program if size <= 80 * GIB else None, size, 80 * GIB)

  def estimate(counted, *_):
    return dict.fromkeys(('step_seconds_in_turn', 'step_seconds_overlapped'), counted['traced'])

  monkeypatch.setattr(costs, 'compile_step', compile_step)
  monkeypatch.setattr(costs, 'residual_bytes', lambda built: 1.0)
  counts = lambda built: traced_flops.Flops(seconds(built.config), 0.0)  # noqa: E731
  monkeypatch.setattr(costs, 'step_flops', counts)
  monkeypatch.setattr(search, 'estimate', estimate)
  given = config(**LAYERS, **options)
  own = needed(given) <= 80
  planned = {'fits': own, 'flops': {'analytic': {'all': 1.0}}}
  planned |= {'estimate': estimate({'traced': seconds(given)})} if own else {}
  until = time.perf_counter() + 300
  found = list(search.search(given, topology.open_topology('a100:8'), planned, until))
  return found, search.fastest(planned, found)


def test_the_fastest_setting_that_fits_is_found(monkeypatch):
  """As if all parameters and activations took 100 GiB, and FSDP saved 30 of them."""
  remats = {'none': 0, 'dots': 10, 'full': 40, 'pairs': 50}
  found, fastest = search_as_if(
    monkeypatch,
    needed=lambda c: 100 - remats[c.model.remat] - 30 * ('fsdp' in c.mesh),
    seconds=lambda c: 1 + remats[c.model.remat] / 100 + 0.05 * ('fsdp' in c.mesh),
    **{'model.remat': 'full'},
  )
  assert fastest['flags'] == ['--config.model.remat=none', '--config.mesh=data:1,fsdp:8']
  assert fastest['needed_bytes'] == 70 * GIB
  # The first does not fit; of the mesh that fits, nothing that recomputes more is compiled.
  assert found[0]['flags'] == ['--config.model.remat=none'] and not found[0]['fits']
  assert sum('fsdp' in ' '.join(one['flags']) for one in found) == 1


def test_a_config_that_is_the_fastest_stays(monkeypatch):
  found, fastest = search_as_if(
    monkeypatch,
    needed=lambda c: 60,
    seconds=lambda c: 1 + 0.1 * ('fsdp' in c.mesh),
  )
  assert fastest is None
  assert [one['flags'] for one in found] == [['--config.mesh=data:1,fsdp:8']]


@pytest.mark.slow
def test_settings_are_listed_when_the_time_is_over(planned):
  late = search.search(config(**LAYERS), topology.open_topology('a100:8'), planned, until=0.0)
  assert {one['fits'] for one in late} == {None}


def test_the_verdict_names_the_settings(planned):
  settings = [
    {'flags': ['--config.model.remat=full'], 'fits': None},
    {
      'flags': ['--config.micro_batches=2', '--config.mesh=data:1,fsdp:8'],
      'fits': False,
      'needed_bytes': 82 * GIB,
      'available_bytes': 80 * GIB,
    },
    {
      'flags': ['--config.micro_batches=4'],
      'fits': True,
      'needed_bytes': 70 * GIB,
      'available_bytes': 80 * GIB,
      'estimate': dict.fromkeys(planned['estimate'], 0.25),
    },
  ]
  refused = {'fits': False, 'needed_bytes': 86 * GIB, 'available_bytes': 80 * GIB}
  said = table.verdict(planned | refused | {'settings': settings, 'fastest': settings[2]})
  assert 'needs 86.00 GiB per device, 6.00 GiB over 80.00 GiB' in said
  assert 'With --config.model.remat=full: not tried, for time.' in said
  assert 'With --config.micro_batches=2 --config.mesh=data:1,fsdp:8: it is 2.00 GiB over.' in said
  assert 'With --config.micro_batches=4: it fits, 70.00 GiB, 0.250 to 0.250 s.' in said
  assert 'Fastest: --config.micro_batches=4 (compute ' in said


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
  compiled, needed, available = costs.compile_step(run)
  arguments = costs.device_bytes(run.abstract_state) + costs.batch_bytes(run)
  assert compiled is None and available == 15.75 * 2**30
  assert needed == 34.52 * 2**30 + (arguments if message == ADDED else 0)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs libtpu')
def test_the_tpu_compiler_decides_what_fits():
  fitting = config(batch_size=64, mesh='data:4,fsdp:4')
  result = plan.plan(fitting, topology.open_topology('v5e:4x4'), seconds=0)
  assert result['fits'] and result['estimate']['step_seconds_overlapped'] > 0
  assert result['collectives']['collective-permute']['count'] >= 16
  large = clip.get_config('vit_b16')
  result = plan.plan(large, topology.open_topology('v5e:4x4'), seconds=0)
  assert not result['fits'] and result['needed_bytes'] > result['available_bytes']


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None or jax.__version_info__ < (0, 12),
  reason='needs libtpu and jax 0.12',
)
def test_slices_are_planned(tmp_path):
  joined = config(batch_size=64, mesh='data:4,fsdp:2')
  result = plan.run(joined, 'v5e:2x2*2', tmp_path, seconds=0)
  assert result['fits'] and result['devices'] == 8
  assert (tmp_path / 'plan_v5e_2x2_2.json').exists()
  with pytest.raises(ValueError, match="data:1 on 2 slices; 'data' joins the slices"):
    plan.plan(config(batch_size=64, mesh='fsdp:8'), topology.open_topology('v5e:2x2*2'))


def test_settings_divide_the_batch_of_every_sequence_length():
  made = naflex.get_config('smoke')
  made.data.sequence_lengths, made.batch_size, made.mesh = (16, 64), 32, 'data:8'
  made.data.batch_multiple = 40  # of 128 images of 16 patches, 120 are left
  over = topology.open_topology('cpu:8')
  settings = [*search._settings(made, over)]
  assert settings and {setting.micro_batches for setting in settings} == {1}
  built = build.build(made, over.devices)
  _, batch, *_ = loss.loss_gradient(built)[1]
  assert batch['image'].pixels.shape == (32, 64, 8, 8, 3)
  assert costs.batch_bytes(built) == 32 / 8 * (64 * 8 * 8 * 3 + 2 * 4 + 4 * 16 + 4 + 4)
