"""Published specifications of accelerators."""

from typing import NamedTuple

import jax


class Chip(NamedTuple):
  """Published specifications of an accelerator.

  Attributes:
    name: display name.
    memory: bytes of device memory.
    peak: dense bfloat16 FLOP/s.
    bandwidth: bytes/s of the memory.
    link: bytes/s sent to chips of the same node, over all links.
    node: number of chips connected by those links.
    network: bytes/s sent to other nodes, per chip.
    torus: number of dimensions of the torus of links; 0 where a switch connects the chips of a
      node.
    hop: seconds of latency per hop over a link.
    network_hop: seconds of latency per hop to another node.
    passes: cost of an exact float32 product in bfloat16 products: six passes on a TPU
      (`Precision.HIGHEST`), slower units on a GPU.
  """

  name: str
  memory: float
  peak: float
  bandwidth: float
  link: float
  node: int
  network: float
  torus: int
  hop: float
  network_hop: float
  passes: int


# TPUs: https://cloud.google.com/tpu/docs/v5e, /v5p and /v6e, key chip specifications. Bidirectional
# interconnect bandwidths are halved. Their GB of memory are GiB: the compiler allots 15.75 GiB of a
# v5e's 16. A pod is one node; its size and its network are in the same tables. Latency: about a
# microsecond per hop, Austin et al., How to Scale Your Model, 2025; for the network that of GPUs.
# GPUs: data sheets of NVIDIA A100 80GB SXM and H100 SXM, dense FLOP/s, half of the bidirectional
# NVLink bandwidth. Networks: DGX A100 and DGX H100, one 200 or 400 Gbit/s adapter per GPU. Latency:
# the constants of NCCL's tuning for rings and its protocol Simple, 3.4 and 14 microseconds.
CHIPS = {
  'v5e': Chip('TPU v5e', 16 * 2**30, 197e12, 819e9, 200e9, 256, 3.125e9, 2, 1e-6, 14e-6, 6),
  'v5p': Chip('TPU v5p', 95 * 2**30, 459e12, 2.765e12, 600e9, 8960, 6.25e9, 3, 1e-6, 14e-6, 6),
  'v6e': Chip('TPU v6e', 32 * 2**30, 918e12, 1.638e12, 400e9, 256, 12.5e9, 2, 1e-6, 14e-6, 6),
  'a100': Chip(
    'NVIDIA A100 80GB SXM', 80e9, 312e12, 2.039e12, 300e9, 8, 25e9, 0, 3.4e-6, 14e-6, 16
  ),
  'h100': Chip('NVIDIA H100 SXM', 80e9, 989e12, 3.35e12, 450e9, 8, 50e9, 0, 3.4e-6, 14e-6, 15),
}


# Chips by the device kind that JAX reports.
_KINDS = {
  'TPU v5 lite': 'v5e',
  'TPU v5e': 'v5e',
  'TPU v5': 'v5p',
  'TPU v5p': 'v5p',
  'TPU v6 lite': 'v6e',
  'TPU v6e': 'v6e',
}


def chip_of(device: jax.Device) -> Chip | None:
  """Returns the specifications of a device; None if unknown."""
  kind = device.device_kind
  for name in ('a100', 'h100'):
    if name.upper() in kind:
      return CHIPS[name]
  return CHIPS.get(_KINDS.get(kind))
