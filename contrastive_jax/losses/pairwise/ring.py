"""A scan over all pairs of rows and columns, in blocks, on a ring of groups of devices.

Rows stay on their device. The devices of a group gather their shards of columns, and these travel
round the ring from group to group. Each device visits the pairs of its rows with the columns that
it holds, block by block. In a ring of one group nothing travels. Of several rings, each of
consecutive devices, each visits its own pairs only.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Tree = Any


class Span(NamedTuple):
  """The rows, or the columns, of a block within the matrix of all pairs."""

  index: jax.Array  # type: ignore[assignment]  # [b] global indices; hides tuple.index
  fresh: jax.Array | None  # [b] False for a row that the previous block held; None: all fresh
  group: jax.Array | None = None  # [b] part of the batch whose pairs count; None: all


def ring_scan(
  visit: Callable[[Span, Span, Tree, Tree, Tree, Tree], tuple[Tree, Tree]],
  rows: Tree,
  row_sums: Tree,
  columns: Tree,
  column_sums: Tree,
  *,
  block_shape: tuple[int, int],
  axes: Sequence[str] = (),
  shards: int = 1,
  group: int = 1,
  rings: int = 1,
) -> tuple[Tree, Tree]:
  """Visits every pair of a row and a column of a ring once, in blocks.

  Args:
    visit: `visit(row_span, column_span, rows, row_sums, columns, column_sums)` of a block; returns
      the block's `row_sums` and `column_sums`.
    rows: inputs of this device's rows: leaves [B, …].
    row_sums: accumulators of the rows: leaves [B, …].
    columns: inputs of the group's columns, from `gather`: leaves [B', …].
    column_sums: accumulators of the columns: leaves [B', …]. Columns and their accumulators travel,
      and return to their group.
    block_shape: the maximum number of rows, and of columns, per block.
    axes: the mesh axes that the rings run over, inside a shard_map.
    shards: the number of devices, a multiple of `group` times `rings`.
    group: the number of devices in a group.
    rings: the number of rings, each of consecutive devices.

  Returns:
    `row_sums` after all pairs of the device's rows; `column_sums` after the pairs of the group's
    columns with the rows of the devices in the same place of each group.
  """
  row_count, row_span = _spans(rows, block_shape[0])
  column_count, column_span = _spans(columns, block_shape[1])
  here, hops = lax.axis_index(axes) if shards > 1 else 0, shards // group // rings
  send = functools.partial(_send, axes=axes, shards=shards, group=group, hops=hops)

  def visit_shard(state, hop):
    row_sums, columns, column_sums = state
    # Sent before the blocks are visited, so that the transfer overlaps with them.
    following = send(columns)
    own = here // group
    owner = own // hops * hops + (own - hop) % hops  # a group of the same ring

    def visit_rows(sums, index):
      row_start, row_extent = row_span(index, here)
      row_block = _cut(rows, row_start, row_extent)

      def visit_block(sums, index):
        start, extent = column_span(index, owner)
        column_block, before = (_cut(tree, start, extent) for tree in (columns, sums[1]))
        row_part, after = visit(row_extent, extent, row_block, sums[0], column_block, before)
        return (row_part, _put(sums[1], after, start)), None

      # Rows are the outer loop, so XLA hoists what depends on them only.
      start = _cut(sums[0], row_start, row_extent), sums[1]
      (row_part, column_sums), _ = lax.scan(visit_block, start, jnp.arange(column_count))
      return (_put(sums[0], row_part, row_start), column_sums), None

    sums = row_sums, column_sums
    (row_sums, column_sums), _ = lax.scan(visit_rows, sums, jnp.arange(row_count))
    return (row_sums, following, send(column_sums)), None

  state = row_sums, columns, column_sums
  if hops == 1:
    (row_sums, _, column_sums), _ = visit_shard(state, 0)
  else:
    (row_sums, _, column_sums), _ = lax.scan(visit_shard, state, jnp.arange(hops))
  return row_sums, column_sums


def _spans(tree, block_size):
  """The number of blocks, and a function: the start and the span of block `index` of `owner`."""
  size = jax.tree.leaves(tree)[0].shape[0]
  count = -(-size // block_size)
  # Blocks have one size, as even as possible. The last begins early and repeats some rows, less
  # than one per block; a padded last block could be nearly empty.
  width = -(-size // count)

  def span(index, owner):
    start = jnp.minimum(index * width, size - width)
    local = start + jnp.arange(width)
    fresh = None if size % width == 0 else local >= index * width
    return start, Span((owner * size + local).astype(jnp.int32), fresh)

  return count, span


def _cut(tree, start, span):
  return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, len(span.index)), tree)


def _put(tree, block, start):
  return jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, start, 0), tree, block)


def _send(tree, axes, shards, group, hops):
  """Sends a tree to the next group of the ring."""
  if hops == 1:
    return tree
  size = group * hops
  following = [(place, place // size * size + (place + group) % size) for place in range(shards)]
  return jax.tree.map(lambda a: lax.ppermute(a, axes, following), tree)


def gather(tree: Tree, axes: Sequence[str], shards: int, group: int) -> Tree:
  """Gathers leaves [B, …] of a group's devices to [group · B, …]."""
  if group == 1:
    return tree
  options = {'axis_index_groups': _groups(shards, group), 'tiled': True}
  return jax.tree.map(lambda a: lax.all_gather(a, axes, **options), tree)


def exchange(tree: Tree, axes: Sequence[str], shards: int, group: int) -> Tree:
  """Hands out leaves [group · B, …]: each device gets its own [B, …] from all, [group, B, …]."""

  def hand_out(a):
    parts = a.reshape(group, -1, *a.shape[1:])
    return lax.all_to_all(parts, axes, 0, 0, axis_index_groups=_groups(shards, group))

  return jax.tree.map(hand_out, tree)


def scatter(tree: Tree, axes: Sequence[str], shards: int, group: int) -> Tree:
  """Sums leaves [group · B, …] over a group; each device gets its own [B, …]."""
  if group == 1:
    return tree
  options = {'axis_index_groups': _groups(shards, group), 'tiled': True}
  return jax.tree.map(lambda a: lax.psum_scatter(a, axes, **options), tree)


def _groups(shards, group):
  return [[*range(start, start + group)] for start in range(0, shards, group)]
