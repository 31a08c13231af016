"""Estimates the time of a step from its costs and the published specifications of the chip."""

import math
from collections.abc import Mapping
from typing import Any

from contrastive_jax.planning.hlo import Collective
from contrastive_jax.planning.topology import Topology
from contrastive_jax.runtime.chips import Chip


def estimate(
  flops: Mapping[str, Any],
  collectives: Mapping[str, Collective],
  moved: float,
  topology: Topology,
) -> dict[str, float]:
  """Roofline estimate of the step time.

  Compute, memory and interconnect have a time each, at the full rates of the chip; that of the
  interconnect includes the latency of every hop. A step takes the longest of them if they overlap
  completely, and their sum if they run in turn. Utilization counts model FLOPs, without
  recomputation and padding.

  Args:
    flops: FLOPs per step on all devices, see `plan.plan`.
    collectives: collectives of a step by kind.
    moved: bytes that a step reads from and writes to the memory of a device.
    topology: the devices; their chip must be known.

  Returns:
    Seconds, utilizations from 0 to 1, and `moved_bytes`, by name.
  """
  chip, devices = topology.chip, len(topology.devices)
  assert chip is not None, topology.name
  operations = flops['traced'] + (chip.passes - 1) * flops['traced_float32']
  parts = [
    (times * latency(kind, group, chip, topology.node), transfer(kind, sent, group, topology))
    for kind, collective in collectives.items()
    for group, (times, sent) in collective.groups.items()
  ]
  waiting, sending = (sum(part) for part in zip(*parts, strict=True)) if parts else (0.0, 0.0)
  seconds = {
    'compute_seconds': operations / devices / chip.peak,
    'memory_seconds': moved / chip.bandwidth,
    'interconnect_seconds': sending + waiting,
  }
  ideal = flops['analytic']['all'] / devices / chip.peak
  shortest, longest = max(seconds.values()), sum(seconds.values())
  return seconds | {
    'latency_seconds': waiting,
    'step_seconds_overlapped': shortest,
    'step_seconds_in_turn': longest,
    'utilisation_overlapped': ideal / shortest,
    'utilisation_in_turn': ideal / longest,
    'moved_bytes': moved,
  }


def transfer(kind: str, sent: float, group: int, topology: Topology) -> float:
  """Returns the seconds in which a device sends the bytes of a collective.

  Between nodes a permutation sends all of them over the chip's own network. Other collectives
  first reduce or gather within the nodes, so that each chip of a node sends its share.

  Args:
    kind: kind of the collective, one of `hlo.COLLECTIVES`.
    sent: bytes sent by one device.
    group: number of devices that take part.
    topology: the devices.
  """
  chip = topology.chip
  assert chip is not None, topology.name
  if group <= topology.node:
    return sent / chip.link
  share = 1 if kind == 'collective-permute' else topology.node
  return max(sent / chip.link, sent / share / chip.network)


def latency(kind: str, group: int, chip: Chip, node: int) -> float:
  """Returns the seconds of the hops of a collective that wait for each other.

  On a torus each dimension is a ring, whose farthest devices are half of its length apart. Chips
  behind a switch form a ring in each node, and the nodes a tree. An all-reduce gathers what it has
  reduced: twice the hops.

  Args:
    kind: kind of the collective, one of `hlo.COLLECTIVES`.
    group: number of devices that take part.
    chip: specifications of the chip.
    node: number of devices that links connect.
  """
  inside, nodes = min(group, node), math.ceil(group / node)
  if kind == 'collective-permute':
    return chip.network_hop if nodes > 1 else chip.hop
  hops = chip.torus * inside ** (1 / chip.torus) / 2 if chip.torus else inside - 1
  seconds = hops * chip.hop + math.log2(nodes) * chip.network_hop
  return 2 * seconds if kind == 'all-reduce' else seconds
