"""A reduction of all pairs' scores along rows and columns, and its gradient, on any mesh."""

import functools
import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax.losses.pairwise import pallas, ring

Tree = Any


class Side(NamedTuple):
  """What the rows, or the columns, bring to their pairs."""

  vectors: jax.Array  # [B, D]
  scale: jax.Array | None  # [B]; None for columns that share the rows' scores
  bias: jax.Array | None  # [B]; None: 0
  exclude: jax.Array | None  # [B] integers; None: no pair is excluded
  positive: jax.Array | None  # [B] integers; None: `Pairs.positive` is None


class Pairs(NamedTuple):
  """A block of pairs."""

  rows: ring.Span
  columns: ring.Span
  counts: jax.Array | None  # [b, n] False for a pair that does not count; None: all count
  positive: jax.Array | None  # [b, n] whether the pair is positive


class Reduction(Protocol):
  """What each row, or each column, gathers; a plain sum would run over `axis` of the scores."""

  def start(self, size: int, dtype: jnp.dtype) -> Tree:
    """The state of `size` rows or columns that have seen no pair, for scores of this dtype."""

  def update(self, state: Tree, scores: jax.Array, pairs: Pairs, axis: int) -> Tree:
    """The state after a block of scores [b, n]."""

  def finish(self, state: Tree) -> Tree:
    """The result."""

  def residual(self, result: Tree, cotangent: Tree) -> Tree:
    """What `pullback` needs of each row or column."""

  def pullback(self, residual: Tree, scores: jax.Array, pairs: Pairs, axis: int) -> jax.Array:
    """The cotangent of a block of scores [b, n]."""


class Plan(NamedTuple):
  """What is known before any array is."""

  rows: Reduction
  columns: Reduction
  diagonal: bool  # whether pairs i = j count
  dtype: jnp.dtype  # of the vectors in the products
  block_size: int
  mesh: jax.sharding.Mesh | None
  axes: tuple[str, ...]  # those of the mesh over which rows and columns are sharded
  kernel: str  # what visits a block: 'scan' or 'pallas'

  @property
  def shards(self) -> int:
    """The number of shards of the rows, and of the columns."""
    return math.prod(self.mesh.shape[axis] for axis in self.axes)


@functools.partial(jax.jit, static_argnums=0)
def reduce(plan: Plan, rows: Side, columns: Side) -> tuple[Tree, Tree]:
  """The results of the plan's reductions: of every row, and of every column."""
  return _reduce(plan, rows, columns)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reduce(plan, rows, columns):
  return _sharded(plan, _forward)(*_cast(plan, rows, columns))


def _reduce_forward(plan, rows, columns):
  results = _reduce(plan, rows, columns)
  return results, (rows, columns, results)


def _reduce_backward(plan, saved, cotangents):
  rows, columns, results = saved
  row_residual = plan.rows.residual(results[0], cotangents[0])
  column_residual = plan.columns.residual(results[1], cotangents[1])
  cast = _cast(plan, rows, columns)
  gradients = _sharded(plan, _backward)((cast[0], row_residual), (cast[1], column_residual))
  return tuple(
    Side(vectors.astype(side.vectors.dtype), *numbers, exclude=None, positive=None)
    for (vectors, *numbers), side in zip(gradients, (rows, columns), strict=True)
  )


_reduce.defvjp(_reduce_forward, _reduce_backward)


def _cast(plan, *sides):
  return tuple(side._replace(vectors=side.vectors.astype(plan.dtype)) for side in sides)


def _sharded(plan, function):
  """`function` of what each device holds, in a ring over the plan's axes."""
  function = functools.partial(function, plan)
  if plan.mesh is None:
    return function
  batch = jax.P(plan.axes)
  # Every gradient is as long as the batch, and sharded like it: a scale's is summed outside, once.
  return jax.shard_map(
    function, mesh=plan.mesh, in_specs=(batch, batch), out_specs=(batch, batch), check_vma=False
  )


def _forward(plan, rows, columns):
  def visit(row_span, column_span, rows, row_state, columns, column_state):
    _, row_scores, column_scores, pairs = _block(plan, row_span, column_span, rows, columns)
    row_state = plan.rows.update(row_state, row_scores, pairs, 1)
    column_state = plan.columns.update(column_state, column_scores, pairs, 0)
    return row_state, column_state

  dtype = accumulator(rows.vectors.dtype)
  row_start = plan.rows.start(len(rows.vectors), dtype)
  column_start = plan.columns.start(len(columns.vectors), dtype)
  row_state, column_state = _walk(plan, visit, rows, row_start, columns, column_start)
  return plan.rows.finish(row_state), plan.columns.finish(column_state)


def _backward(plan, rows_and_residual, columns_and_residual):
  def visit(row_span, column_span, rows, row_sums, columns, column_sums):
    (rows, row_residual), (columns, column_residual) = rows, columns
    products, row_scores, column_scores, pairs = _block(plan, row_span, column_span, rows, columns)
    row_part = plan.rows.pullback(row_residual, row_scores, pairs, 1)
    column_part = plan.columns.pullback(column_residual, column_scores, pairs, 0)
    # Joined before the matmuls, of which there are two then, not four.
    if shared:
      joined = row_part = column_part = row_part + column_part
    else:
      joined = row_part * rows.scale[:, None] + column_part * columns.scale
    row_sums = _accumulate(row_sums, rows, columns, joined, row_part, products, 1)
    column_sums = _accumulate(column_sums, columns, rows, joined, column_part, products, 0)
    return row_sums, column_sums

  rows, columns = rows_and_residual[0], columns_and_residual[0]
  shared = columns.scale is None
  row_start = _zeros(rows._replace(scale=None) if shared else rows)
  sums = _walk(plan, visit, rows_and_residual, row_start, columns_and_residual, _zeros(columns))
  return _scaled(rows, *sums) if shared else sums


def _scaled(rows, row_sums, column_sums):
  """The gradients where one scale serves all pairs: it waited until the walk was over."""
  vectors, _, bias = row_sums
  of_scale = jnp.sum(rows.vectors * vectors, 1)  # Σ_j g_ij x_i · y_j, g the scores' cotangents
  scale = rows.scale[0]
  return (scale * vectors, of_scale, bias), (scale * column_sums[0], None, None)


def _walk(plan, visit, rows, row_sums, columns, column_sums):
  row_count = len(jax.tree.leaves(rows)[0])
  if plan.kernel == 'pallas':
    # All rows pass by the columns on the chip.
    visit = pallas.on_chip(visit, plan.block_size)
    block_shape = row_count, plan.block_size
  else:
    # Taller than wide: the taller a block, the seldomer a column's sums are read and written.
    height = min(row_count, 2 * plan.block_size)
    block_shape = height, max(plan.block_size**2 // height, 1)
  return ring.walk(
    visit,
    rows,
    row_sums,
    columns,
    column_sums,
    block_shape=block_shape,
    axes=plan.axes,
    shards=plan.shards,
  )


def _block(plan, row_span, column_span, rows, columns):
  """A block's products, its scores to the rows and to the columns [b, n], and its pairs."""
  products = _matmul(rows.vectors, columns.vectors, 1, 1)
  scores = _affine(products, rows, 1)
  column_scores = scores if columns.scale is None else _affine(products, columns, 0)

  conditions = []
  same = row_span.index[:, None] == column_span.index
  if row_span.fresh is not None:
    conditions.append(row_span.fresh[:, None])
  if column_span.fresh is not None:
    conditions.append(column_span.fresh)
  if rows.exclude is not None:
    conditions.append(same | (rows.exclude[:, None] != columns.exclude))
  if not plan.diagonal:
    conditions.append(~same)
  counts = functools.reduce(jnp.logical_and, conditions) if conditions else None
  positive = None if rows.positive is None else rows.positive[:, None] == columns.positive
  return products, scores, column_scores, Pairs(row_span, column_span, counts, positive)


def _affine(products, side, axis):
  scores = products * jnp.expand_dims(side.scale, axis)
  return scores if side.bias is None else scores + jnp.expand_dims(side.bias, axis)


def _zeros(side):
  """Where the gradients of a side's vectors, scale and bias are gathered."""
  return jax.tree.map(lambda a: jnp.zeros(a.shape, accumulator(a.dtype)), side[:3])


def _accumulate(sums, side, other, joined, part, products, axis):
  """A side's gradients after a block: of its vectors, of its scale, of its bias."""
  vectors, scale, bias = sums
  joined = joined.astype(other.vectors.dtype)
  vectors += _matmul(joined, other.vectors, 1, 0) if axis else _over_rows(joined, other.vectors)
  scale = None if scale is None else scale + jnp.sum(part * products, axis)
  bias = None if bias is None else bias + jnp.sum(part, axis)
  return vectors, scale, bias


def _matmul(a, b, a_axis, b_axis):
  """Contracts `a_axis` of `a` with `b_axis` of `b`, in float32 at least."""
  # An accelerator multiplies float32 in less than that unless told not to.
  precision = lax.Precision.DEFAULT if a.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
  return lax.dot_general(
    a,
    b,
    (((a_axis,), (b_axis,)), ((), ())),
    precision=precision,
    preferred_element_type=accumulator(a.dtype),
  )


def _over_rows(a, b):
  """Contracts the rows of `a` with the rows of `b`, as `_matmul` does."""

  def turned(a, b):
    # XLA's fast matmul on a CPU contracts the last axis of what stands on the left; the other takes
    # 1.6 times as long. Without the barriers XLA would take out the transposes, and be slow again.
    product = _matmul(lax.optimization_barrier(b.T), a, 1, 0)
    return lax.optimization_barrier(product).T

  plain = functools.partial(_matmul, a_axis=0, b_axis=0)
  return lax.platform_dependent(a, b, cpu=turned, default=plain)


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
  """The dtype of scores and sums over vectors of `dtype`."""
  return jnp.promote_types(dtype, jnp.float32)
