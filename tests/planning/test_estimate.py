import pytest

from contrastive_jax.planning import estimate
from contrastive_jax.planning.hlo import Collective, Program
from contrastive_jax.planning.topology import Topology
from contrastive_jax.runtime.chips import CHIPS


def topology(chip, devices, slices=1):
  return Topology(chip, list(range(devices)), CHIPS[chip], simulated=False, slices=slices)


@pytest.mark.parametrize(
  ('kind', 'group', 'devices', 'seconds'),
  [
    ('collective-permute', 256, 256, 1e-6),
    ('all-gather', 256, 256, 16e-6),  # a torus of 16 x 16: 8 + 8 hops
    ('all-reduce', 256, 256, 32e-6),
    ('all-gather', 1, 256, 1e-6),
  ],
)
def test_hops_on_a_torus(kind, group, devices, seconds):
  given = topology('v5e', devices)
  assert estimate.latency(kind, group, given.chip, given.node) == pytest.approx(seconds)


@pytest.mark.parametrize(
  ('kind', 'group', 'seconds'),
  [
    ('collective-permute', 8, 3.4e-6),
    ('collective-permute', 16, 14e-6),
    ('reduce-scatter', 8, 7 * 3.4e-6),
    ('reduce-scatter', 64, 7 * 3.4e-6 + 3 * 14e-6),
    ('all-reduce', 64, 2 * (7 * 3.4e-6 + 3 * 14e-6)),
  ],
)
def test_hops_in_and_between_nodes(kind, group, seconds):
  given = topology('h100', 64)
  assert estimate.latency(kind, group, given.chip, given.node) == pytest.approx(seconds)


def test_bytes_between_nodes_are_shared_by_their_chips():
  given, sent = topology('h100', 64), 1e9
  chip = given.chip
  assert estimate.transfer('all-reduce', sent, 8, given) == sent / chip.link
  assert estimate.transfer('all-reduce', sent, 64, given) == sent / 8 / chip.network
  assert estimate.transfer('collective-permute', sent, 64, given) == sent / chip.network


def test_slices_are_joined_by_the_network():
  one, two = topology('v5e', 32), topology('v5e', 32, slices=2)
  assert (one.node, two.node) == (32, 16)
  single, joined = (estimate.transfer('all-reduce', 1e9, 32, given) for given in (one, two))
  assert joined == pytest.approx(1e9 / 16 / two.chip.network) and joined > single


def test_latency_counts_every_execution():
  flops = {'traced': 0.0, 'traced_float32': 0.0, 'analytic': {'all': 1.0}}
  moves = {'collective-permute': Collective(100, 0.0, {64: (90, 0.0), 8: (10, 0.0)})}
  times = estimate.estimate(flops, moves, 0.0, topology('h100', 64))
  assert times['latency_seconds'] == pytest.approx(90 * 14e-6 + 10 * 3.4e-6)
  assert times['interconnect_seconds'] == times['latency_seconds'] == times['step_seconds_in_turn']


def test_collectives_are_listed_by_the_size_of_their_group():
  text = """HloModule step, num_partitions=8

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %a = f32[4]{0} all-reduce(%x), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  %b = f32[4]{0} all-reduce(%a), replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %c = f32[4]{0} collective-permute(%b), source_target_pairs={{0,1}}
}
"""
  found = Program(text).collectives()
  assert found['all-reduce'].groups == {2: (1, 16.0), 8: (1, 28.0)}
  assert found['collective-permute'].groups == {8: (1, 16.0)}
