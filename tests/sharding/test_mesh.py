import os

import jax
import pytest

from contrastive_jax.runtime import cpu
from contrastive_jax.sharding import mesh


@pytest.mark.parametrize(
  ('shape', 'sizes'),
  [
    ('data:-1', (8, 1, 1)),
    ('data:8', (8, 1, 1)),
    ('data:-1,fsdp:4', (2, 4, 1)),
    ('fsdp:2, tensor:2, data:2', (2, 2, 2)),
    ('tensor:-1', (1, 1, 8)),
  ],
)
def test_sizes_by_axis(shape, sizes):
  made = mesh.make_mesh(shape)
  assert made.axis_names == mesh.AXES and tuple(made.shape.values()) == sizes
  assert mesh.batch_shards(made) == sizes[0] * sizes[1]


@pytest.mark.parametrize('shape', ['', 'data', 'rows:8', 'data:0', 'data:-2', 'data:x'])
def test_unreadable(shape):
  with pytest.raises(ValueError, match=r'config\.mesh = .*cannot read'):
    mesh.make_mesh(shape)


@pytest.mark.parametrize('shape', ['data:3', 'data:-1,fsdp:3', 'data:-1,fsdp:-1', 'data:16'])
def test_not_fitting(shape):
  with pytest.raises(ValueError, match='does not fit 8 devices'):
    mesh.make_mesh(shape)


class Chip:
  """A TPU's chip, as far as a mesh asks."""

  platform, device_kind, process_index = 'cpu', 'chip', 0

  def __init__(self, number, slices):
    self.id, self.slice_index = number, number * slices // 8


def test_slices_are_joined_along_data():
  made = mesh.make_mesh('data:-1,fsdp:2', [Chip(number, 2) for number in range(8)])
  assert dict(made.shape) == {'data': 4, 'fsdp': 2, 'tensor': 1}
  slices = [[chip.slice_index for chip in row] for row in made.devices[..., 0]]
  assert slices == [[0, 0], [0, 0], [1, 1], [1, 1]]
  with pytest.raises(ValueError, match=r'data:1 on 2 slices; .* use a multiple of 2'):
    mesh.make_mesh('fsdp:8', [Chip(number, 2) for number in range(8)])


def test_chosen_devices():
  assert mesh.make_mesh('data:-1', jax.devices()[:2]).size == 2


@pytest.mark.parametrize(
  ('given', 'cores', 'expected', 'threads'),
  [
    ('', 6, '--xla_force_host_platform_device_count=4 --xla_cpu_multi_thread_eigen=false', '16'),
    ('', 64, '--xla_force_host_platform_device_count=8 --xla_cpu_multi_thread_eigen=false', '32'),
    ('', 1, '', None),
    (
      '--xla_force_host_platform_device_count=3',
      6,
      '--xla_force_host_platform_device_count=3',
      '12',
    ),
  ],
)
def test_cores_become_devices_unless_they_are_counted(given, cores, expected, threads, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', given)
  monkeypatch.delenv('PJRT_NPROC', raising=False)
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(cores)), raising=False)
  cpu.split_cores(spare_threads=True)
  assert os.environ['XLA_FLAGS'] == expected
  assert os.environ.get('PJRT_NPROC') == threads


def test_a_mesh_that_does_not_fit_the_torus_is_an_error(monkeypatch):
  def refuse(*_, **__):
    raise NotImplementedError('Failed to find assignment')

  monkeypatch.setattr(jax, 'make_mesh', refuse)
  with pytest.raises(ValueError, match=r"config\.mesh = 'data:8' does not fit the torus: Failed"):
    mesh.make_mesh('data:8')
