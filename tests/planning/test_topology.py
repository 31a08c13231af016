import builtins

import jax
import pytest

from contrastive_jax.planning import topology
from contrastive_jax.sharding.mesh import make_mesh


@pytest.fixture(autouse=True)
def started():
  """Starts the backend with the devices of all tests, before a test asks for fewer."""
  jax.devices()


def test_simulated_devices_make_a_mesh():
  opened = topology.open_topology('cpu:4')
  assert make_mesh('data:2,fsdp:2', opened.devices).size == 4
  assert opened.chip is None and opened.simulated and opened.memory > 0


def test_a_simulated_gpu_has_published_specifications():
  opened = topology.open_topology('h100:8')
  assert opened.simulated and len(opened.devices) == 8
  assert opened.memory == opened.chip.memory == 80e9
  assert opened.node == opened._replace(devices=opened.devices * 2).node == 8


@pytest.mark.parametrize('name', ['', 'v5e', 'cpu', 'cpu:0', 'cpu:many', 'b200:8', 'h100:2x4'])
def test_an_unknown_topology_is_an_error_that_lists_known_ones(name):
  offered = "use a TPU's such as 'v5e:16x16', .*'cpu:8'"
  with pytest.raises(ValueError, match=f'--topology={name} is unknown; {offered}'):
    topology.open_topology(name)


def test_more_devices_than_the_backend_has_are_an_error():
  with pytest.raises(ValueError, match='64 devices where JAX has started with 8'):
    topology.open_topology('a100:64')


def test_a_missing_libtpu_is_an_error_that_says_what_to_install(monkeypatch):
  from jax.experimental import topologies

  def missing(**_):
    raise jax.errors.JaxRuntimeError('no plugin')

  imported = builtins.__import__

  def without_libtpu(name, *arguments, **options):
    if name == 'libtpu':
      raise ImportError(name)
    return imported(name, *arguments, **options)

  monkeypatch.setattr(topologies, 'get_topology_desc', missing)
  monkeypatch.setattr(builtins, '__import__', without_libtpu)
  with pytest.raises(ValueError, match=r'v5e:16x16 needs the TPU compiler: pip install'):
    topology.open_topology('v5e:16x16')


@pytest.mark.parametrize('name', ['v5e:16x16*', 'v5e:16x16*two', 'v5e:16x16*0'])
def test_a_number_of_slices_is_a_number(name):
  with pytest.raises(ValueError, match="no number of slices; write one as in 'v5e:16x16"):
    topology.open_topology(name)


@pytest.mark.skipif(jax.__version_info__ >= (0, 12), reason='compiles for several slices')
def test_several_slices_need_a_later_jax():
  with pytest.raises(ValueError, match=r'v5e:16x16\*2: libtpu compiles .* from jax 0\.12'):
    topology.open_topology('v5e:16x16*2')
