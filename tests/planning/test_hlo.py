import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from contrastive_jax.planning.hlo import Program
from contrastive_jax.sharding.mesh import make_mesh

SIZE = 16 * 4  # bytes of the vector per device


def program(function, shape='data:8', size=128):
  """Compiles a function of the shards of a vector."""
  mesh = make_mesh(shape)
  sharded = jax.shard_map(
    function, mesh=mesh, in_specs=P('data'), out_specs=P('data'), check_vma=False
  )
  vector = jax.ShapeDtypeStruct((size,), jnp.float32, sharding=NamedSharding(mesh, P('data')))
  return Program(jax.jit(sharded).lower(vector).compile().as_text())


def totals(program):
  """Executions and bytes of the collectives."""
  return {kind: (one.count, one.bytes) for kind, one in program.collectives().items()}


def shift(x):
  return lax.ppermute(x, 'data', [(i, (i + 1) % 8) for i in range(8)])


@pytest.mark.parametrize(
  ('kind', 'function', 'sent'),
  [
    ('all-reduce', lambda x: lax.psum(x, 'data'), 2 * SIZE * 7 / 8),
    ('all-gather', lambda x: lax.all_gather(x, 'data', tiled=True)[:16] + 1, SIZE * 7),
    ('reduce-scatter', lambda x: lax.psum_scatter(jnp.tile(x, 8), 'data', tiled=True), SIZE * 7),
    ('collective-permute', shift, SIZE),
    ('all-to-all', lambda x: lax.all_to_all(x, 'data', 0, 0, tiled=True), SIZE * 7 / 8),
  ],
)
def test_bytes_sent_per_device_in_a_ring(kind, function, sent):
  found = totals(program(function))
  assert found == {kind: (1, sent)}


def test_the_group_of_a_collective_is_a_mesh_axis():
  found = program(lambda x: lax.psum(x, 'data'), 'data:2,tensor:4', size=32)
  assert totals(found) == {'all-reduce': (1, SIZE)}


def test_collectives_of_nested_loops_are_multiplied():
  def hops(x):
    inner = lambda x, _: (shift(x) * 2, None)  # noqa: E731
    outer = lambda x, _: (shift(lax.scan(inner, x, length=3)[0]), None)  # noqa: E731
    return lax.scan(outer, x, length=5)[0]

  found = totals(program(hops))
  assert found == {'collective-permute': (5 * 3 + 5, SIZE * 20)}


def test_a_scan_reads_one_slice_per_iteration():
  def moved(length):
    def summed(stack):
      return lax.scan(lambda total, row: (total + row, None), jnp.zeros(4096), stack)[0]

    stack = jax.ShapeDtypeStruct((length, 4096), jnp.float32)
    return Program(jax.jit(summed).lower(stack).compile().as_text()).moved_bytes()

  # An iteration reads a row, and reads and writes the total: three rows instead of the full stack.
  assert moved(64) - moved(32) == pytest.approx(32 * 3 * 4096 * 4, rel=0.5)


# TPU programs differ: loops have no trip count, groups are axes of a mesh, and a collective may be
# split over fusions.
TPU = """
HloModule step, is_scheduled=true, num_partitions=16

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%body (state: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %hop = (f32[8,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)S(1)}) collective-permute-start(%x), \
source_target_pairs={{0,1},{1,0}}
  %next = f32[8,128]{1,0:T(8,128)S(1)} collective-permute-done(%hop)
  %both = (f32[8,128]{1,0:T(8,128)}, bf16[128]{0:T(128)}) all-reduce(%next, /*index=1*/%next), \
replica_groups=mesh['axis_0'=4,'axis_1'=4] {'axis_1'}, to_apply=%add
  %y = f32[8,128]{1,0:T(8,128)} get-tuple-element(%both), index=0
  ROOT %tuple = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %y)
}

%condition (state: (s32[], f32[8,128])) -> pred[] {
  %bound = s32[]{:T(128)} constant(12)
  %state.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %bound), direction=LT
}

%first (x: bf16[2,128]) -> bf16[8,128] {
  %x.1 = bf16[2,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather.1 = bf16[8,128]{1,0:T(8,128)(2,1)} all-gather(%x.1), \
replica_groups=mesh['axis_0'=4,'axis_1'=4], device_ids=([4,4]T(1,0)) {'axis_1'}, \
frontend_attributes={chain_id="7"}
}

%second (x: bf16[2,128]) -> bf16[8,128] {
  %x.2 = bf16[2,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather.2 = bf16[8,128]{1,0:T(8,128)(2,1)} all-gather(%x.2), \
replica_groups=mesh['axis_0'=4,'axis_1'=4], device_ids=([4,4]T(1,0)) {'axis_1'}, \
frontend_attributes={chain_id="7"}
}

%all-reduce-scatter (x: f32[8,128]) -> f32[2,128] {
  %x.3 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %sum.3 = f32[8,128]{1,0:T(8,128)} all-reduce(%x.3), replica_groups={{0,1,2,3},{4,5,6,7}}, \
to_apply=%add
  ROOT %part = f32[2,128]{1,0:T(8,128)} slice(%sum.3), slice={[0:2], [0:128]}
}

ENTRY %main (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %w = bf16[2,128]{1,0:T(8,128)(2,1)} constant({...})
  %start = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%w), kind=kCustom, calls=%first
  %done = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%w), kind=kCustom, calls=%second
  %whole = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %scatter = f32[2,128]{1,0:T(8,128)} fusion(%whole), kind=kCustom, calls=%all-reduce-scatter
  ROOT %loop = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%p), condition=%condition, \
body=%body
}
"""


def test_a_tpu_program():
  size, vector = 8 * 128 * 4, 128 * 2
  found = totals(Program(TPU))
  assert found == {
    'collective-permute': (12, 12 * size),
    'all-reduce': (12, 12 * (size + vector) * 2 * 3 / 4),
    'all-gather': (1, 8 * 128 * 2 * 3 / 4),
    'reduce-scatter': (1, size * 3 / 4),
  }
