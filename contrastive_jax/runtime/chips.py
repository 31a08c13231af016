"""Published figures of chips."""

from typing import NamedTuple

import jax


class Chip(NamedTuple):
  """Published figures of a chip.

  Attributes:
    name: for people.
    memory: bytes of its own memory.
    peak: bfloat16 FLOP/s of its matrix units, dense.
    bandwidth: bytes/s from and to its memory.
    link: bytes/s that it sends to chips of its node, over all links.
    node: number of chips joined by those links.
    network: bytes/s that it sends to other nodes.
    passes: what an exact float32 product costs, in bfloat16 ones: a TPU makes it of six of them
      (`Precision.HIGHEST`), a GPU has slower units.
  """

  name: str
  memory: float
  peak: float
  bandwidth: float
  link: float
  node: int
  network: float
  passes: int


# TPUs: https://cloud.google.com/tpu/docs/v5e, /v5p and /v6e, key chip specifications. Where
# these give the interconnect both ways, half of it is sent. GB of memory are GiB there: the
# compiler allots 15.75 GiB of a v5e's 16. A pod is one node; its size is in the same tables.
# GPUs: NVIDIA A100 80GB SXM and H100 SXM data sheets, dense; NVLink is given both ways. The
# networks are those of DGX A100 and DGX H100, a 200 and a 400 Gbit/s adapter a GPU.
CHIPS = {
  'v5e': Chip('TPU v5e', 16 * 2**30, 197e12, 819e9, 200e9, 256, 0, 6),
  'v5p': Chip('TPU v5p', 95 * 2**30, 459e12, 2.765e12, 600e9, 8960, 0, 6),
  'v6e': Chip('TPU v6e', 32 * 2**30, 918e12, 1.638e12, 400e9, 256, 0, 6),
  'a100': Chip('NVIDIA A100 80GB SXM', 80e9, 312e12, 2.039e12, 300e9, 8, 25e9, 16),
  'h100': Chip('NVIDIA H100 SXM', 80e9, 989e12, 3.35e12, 450e9, 8, 50e9, 15),
}


# What JAX calls them.
_KINDS = {
  'TPU v5 lite': 'v5e',
  'TPU v5e': 'v5e',
  'TPU v5': 'v5p',
  'TPU v5p': 'v5p',
  'TPU v6 lite': 'v6e',
  'TPU v6e': 'v6e',
}


def chip_of(device: jax.Device) -> Chip | None:
  """The published figures of a device that is there; None where they are not known here."""
  kind = device.device_kind
  for name in ('a100', 'h100'):
    if name.upper() in kind:
      return CHIPS[name]
  return CHIPS.get(_KINDS.get(kind))
