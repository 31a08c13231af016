"""Devices of a topology by name, for compilation without the hardware, and their specifications."""

import contextlib
import os
from typing import Any, NamedTuple

import jax

from contrastive_jax.runtime.chips import CHIPS, Chip

# Variables that keep libtpu from querying the machine, and let several processes compile.
_LIBTPU_WITHOUT_TPU = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}


class Topology(NamedTuple):
  """Devices for which a program can be compiled.

  Attributes:
    name: name of the topology.
    devices: devices for `sharding.mesh.make_mesh`.
    chip: specifications; None for a CPU.
    simulated: whether programs are compiled for CPU devices in place of the chips.
    slices: number of TPU slices, connected by the network.
  """

  name: str
  devices: list[Any]
  chip: Chip | None
  simulated: bool
  slices: int = 1

  @property
  def memory(self) -> float:
    """Bytes per device; for a simulated CPU device, its share of this machine's memory."""
    if self.chip is not None:
      return self.chip.memory
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / len(self.devices)

  @property
  def node(self) -> int:
    """Number of devices that links connect; others are reached over the network."""
    assert self.chip is not None, self.name
    return min(self.chip.node, len(self.devices) // self.slices)


def open_topology(name: str) -> Topology:
  """Opens a topology by name; call it before JAX's backend starts, as it may simulate devices.

  Args:
    name: TPUs such as 'v5e:16x16', or two slices of them, 'v5e:16x16*2', compiled by libtpu;
      simulated CPU devices such as 'cpu:8'; or GPUs such as 'h100:64' and 'a100:8', for which the
      CPU compiler stands in.

  Raises:
    ValueError: if the name is unknown or the compiler refuses it, libtpu is missing or too old for
      several slices, or the backend already started with fewer devices.
  """
  kind, _, size = name.partition(':')
  if kind in ('cpu', 'a100', 'h100') and size.isdigit() and int(size) > 0:
    return Topology(name, _cpu_devices(int(size)), CHIPS.get(kind), simulated=True)
  if kind not in CHIPS or kind in ('a100', 'h100') or not size:
    raise ValueError(
      f"--topology={name} is unknown; use a TPU's such as 'v5e:16x16', 'v5p:8x8x8' or 'v6e:16x16', "
      "'cpu:8' for simulated devices, or 'h100:64' or 'a100:64'"
    )
  shape, _, number = name.partition('*')
  slices = int(number) if number.isdigit() else 0 if '*' in name else 1
  if slices < 1:
    raise ValueError(f"--topology={name} has no number of slices; write one as in 'v5e:16x16*2'")
  return Topology(name, _tpu_devices(shape, slices), CHIPS[kind], simulated=False, slices=slices)


def _cpu_devices(number: int) -> list:
  jax.config.update('jax_platforms', 'cpu')
  with contextlib.suppress(RuntimeError):  # raised once the backend has started
    jax.config.update('jax_num_cpu_devices', number)
  devices = jax.devices('cpu')
  if len(devices) < number:
    raise ValueError(
      f'--topology asks for {number} devices where JAX has started with {len(devices)}; ask in a '
      'new process, without xla_force_host_platform_device_count in XLA_FLAGS'
    )
  return devices[:number]


def _tpu_devices(name: str, slices: int) -> list:
  if slices > 1 and jax.__version_info__ < (0, 12):
    raise ValueError(
      f'--topology={name}*{slices}: libtpu compiles for several slices from jax 0.12, which needs '
      f'Python 3.12 or newer; this is jax {jax.__version__}'
    )
  # The CPU platform suffices: nothing is executed.
  jax.config.update('jax_platforms', 'cpu')
  for variable, value in _LIBTPU_WITHOUT_TPU.items():
    os.environ.setdefault(variable, value)
  from jax.experimental import topologies  # needs libtpu only on use

  try:
    several = {'num_slices': slices} if slices > 1 else {}
    described = topologies.get_topology_desc(platform='tpu', topology_name=name, **several)
    return list(described.devices)
  except Exception as error:
    # JAX raises the same error for a missing plugin and for a refused shape.
    try:
      import libtpu  # noqa: F401
    except ImportError:
      raise ValueError(
        f'--topology={name} needs the TPU compiler: pip install -e .[tpu]; or use '
        " 'cpu:8', 'h100:64' or 'a100:64'"
      ) from error
    raise ValueError(f'--topology={name} is refused by libtpu: {error}') from error
