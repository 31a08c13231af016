"""Devices by the name of a topology, none of which need be there, and what their makers publish."""

import contextlib
import os
from typing import Any, NamedTuple

import jax

from contrastive_jax.runtime.chips import CHIPS, Chip

# So that libtpu asks nobody what machine this is, and lets several processes compile.
_NO_TPU = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}


class Topology(NamedTuple):
  """Devices that a program can be compiled for.

  Attributes:
    name: as it was asked for.
    devices: for `sharding.mesh.make_mesh`.
    chip: the published figures; None for a CPU.
    simulated: whether the program is compiled for CPU devices in the chips' place.
  """

  name: str
  devices: list[Any]
  chip: Chip | None
  simulated: bool

  @property
  def memory(self) -> float:
    """Bytes that a device has; a simulated CPU device its share of this machine's."""
    if self.chip is not None:
      return self.chip.memory
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / len(self.devices)

  @property
  def link(self) -> float:
    """Bytes/s that a chip sends to the others: inside a node, or between nodes where there are."""
    return self.chip.link if len(self.devices) <= self.chip.node else self.chip.network


def open_topology(name: str) -> Topology:
  """Finds devices by name; call it before JAX's backend starts, as it may have to simulate some.

  Args:
    name: 'v5e:16x16' and the like, for the TPU compiler of libtpu; 'cpu:8', simulated CPU devices;
      or 'h100:64' and 'a100:8', for which the CPU's compiler stands in.

  Raises:
    ValueError: for a name that is unknown or that the compiler refuses, if libtpu is missing, or if
      the backend started with fewer devices.
  """
  kind, _, size = name.partition(':')
  if kind in ('cpu', 'a100', 'h100') and size.isdigit() and int(size) > 0:
    return Topology(name, _simulated(int(size)), CHIPS.get(kind), simulated=True)
  if kind not in CHIPS or kind in ('a100', 'h100') or not size:
    raise ValueError(
      f"--topology={name} is unknown; use a TPU's such as 'v5e:16x16', 'v5p:8x8x8' or 'v6e:16x16', "
      "'cpu:8' for simulated devices, or 'h100:64' or 'a100:64'"
    )
  return Topology(name, _described(name), CHIPS[kind], simulated=False)


def _simulated(number: int) -> list:
  jax.config.update('jax_platforms', 'cpu')
  with contextlib.suppress(RuntimeError):  # JAX refuses once the backend has started.
    jax.config.update('jax_num_cpu_devices', number)
  devices = jax.devices('cpu')
  if len(devices) < number:
    raise ValueError(
      f'--topology asks for {number} devices where JAX has started with {len(devices)}; ask in a '
      'new process, without xla_force_host_platform_device_count in XLA_FLAGS'
    )
  return devices[:number]


def _described(name: str) -> list:
  # Nothing is run, so no accelerator is asked for.
  jax.config.update('jax_platforms', 'cpu')
  for variable, value in _NO_TPU.items():
    os.environ.setdefault(variable, value)
  from jax.experimental import topologies  # needs libtpu only when it is asked

  try:
    return list(topologies.get_topology_desc(platform='tpu', topology_name=name).devices)
  except Exception as error:
    # JAX raises one kind of error for a plugin that is missing and for a shape that is refused.
    try:
      import libtpu  # noqa: F401
    except ImportError:
      raise ValueError(
        f'--topology={name} needs the TPU compiler: pip install -e .[tpu]; or use '
        " 'cpu:8', 'h100:64' or 'a100:64'"
      ) from error
    raise ValueError(f'--topology={name} is refused by libtpu: {error}') from error
