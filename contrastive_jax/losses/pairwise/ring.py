"""The walk over all pairs of rows and columns that every pairwise reduction takes.

Rows stay where they are; columns travel round the ring of devices, a shard at a time. A device
visits its rows and the shard that it holds in blocks. On one device the ring has one place
and nothing travels.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Tree = Any


class Span(NamedTuple):
  """A block's extent along the rows, or along the columns, of the matrix of all pairs."""

  index: jax.Array  # [b] of each row
  fresh: jax.Array | None  # [b] False for a row that the block before held too; None: all fresh


def walk(
  visit: Callable[[Span, Span, Tree, Tree, Tree, Tree], tuple[Tree, Tree]],
  rows: Tree,
  row_sums: Tree,
  columns: Tree,
  column_sums: Tree,
  *,
  block_shape: tuple[int, int],
  axes: Sequence[str] = (),
  shards: int = 1,
) -> tuple[Tree, Tree]:
  """Visits every pair of a row and a column once, in blocks.

  Args:
    visit: `visit(row_span, column_span, rows, row_sums, columns, column_sums)`, on a block; returns
      its `row_sums` and `column_sums`.
    rows: what this device's rows bring: leaves [B, …].
    row_sums: what they have gathered: leaves [B, …].
    columns: what this device's columns bring: leaves [B', …].
    column_sums: what they have gathered: leaves [B', …]. Both travel, and end where they began.
    block_shape: the most rows, and the most columns, in a block.
    axes: the mesh axes that the ring runs over, inside a shard_map.
    shards: the number of devices in the ring.

  Returns:
    `row_sums` and `column_sums` after every pair in the world.
  """
  row_count, row_span = _spans(rows, block_shape[0])
  column_count, column_span = _spans(columns, block_shape[1])
  here = lax.axis_index(axes) if shards > 1 else 0

  def visit_shard(state, hop):
    row_sums, columns, column_sums = state
    # Sent before the blocks are visited: the next shard arrives meanwhile.
    following = _send(columns, axes, shards)
    owner = (here - hop) % shards

    def visit_rows(sums, index):
      row_start, row_extent = row_span(index, here)
      row_block = _cut(rows, row_start, row_extent)

      def visit_block(sums, index):
        start, extent = column_span(index, owner)
        column_block, before = (_cut(tree, start, extent) for tree in (columns, sums[1]))
        row_part, after = visit(row_extent, extent, row_block, sums[0], column_block, before)
        return (row_part, _put(sums[1], after, start)), None

      # The row's block stays for all columns: what a visit makes of it alone, XLA makes once.
      start = _cut(sums[0], row_start, row_extent), sums[1]
      (row_part, column_sums), _ = lax.scan(visit_block, start, jnp.arange(column_count))
      return (_put(sums[0], row_part, row_start), column_sums), None

    sums = row_sums, column_sums
    (row_sums, column_sums), _ = lax.scan(visit_rows, sums, jnp.arange(row_count))
    return (row_sums, following, _send(column_sums, axes, shards)), None

  state = row_sums, columns, column_sums
  if shards == 1:
    (row_sums, _, column_sums), _ = visit_shard(state, 0)
  else:
    (row_sums, _, column_sums), _ = lax.scan(visit_shard, state, jnp.arange(shards))
  return row_sums, column_sums


def _spans(side, block_size):
  """The number of blocks along a side, and where the block `index` of the shard `owner` lies."""
  size = jax.tree.leaves(side)[0].shape[0]
  count = -(-size // block_size)
  # Blocks of one size, as even as can be: the last begins early, and repeats less than a row a
  # block where a padded one could be nearly empty.
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


def _send(tree, axes, shards):
  if shards == 1:
    return tree
  following = [(place, (place + 1) % shards) for place in range(shards)]
  return jax.tree.map(lambda a: lax.ppermute(a, axes, following), tree)
