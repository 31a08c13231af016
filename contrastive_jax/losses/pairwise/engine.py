"""Reduces the scores of all pairs along rows and columns, with gradients, on any mesh.

On a mesh the devices of a group gather their shards of columns, see `arguments.Ring`: larger groups
make a shorter ring.

The batch may consist of groups of rows and columns, between which no pair counts. There are then
gcd(groups, shards) rings, of as few devices as hold full groups. A device with several groups maps
over them. In a ring of several devices and groups, blocks without pairs that count are skipped.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from contrastive_jax.losses.pairwise import pallas, ring
from contrastive_jax.losses.pairwise.matmul import accumulator, matmul, matmul_pairs

Tree = Any


class Operand(NamedTuple):
  """What the rows, or the columns, of S are made of."""

  vectors: Tree  # [B, D]; or a tuple of k of these, for k products per block
  scale: jax.Array | None  # [B]; None for columns that share the rows' scores
  bias: jax.Array | None  # [B]; None: 0
  exclude: jax.Array | None  # [B] integers; None: no pair is excluded
  data: Tree = None  # side data of the term: leaves [B, …]


class Block(NamedTuple):
  """A block of pairs."""

  rows: ring.Span
  columns: ring.Span
  counts: jax.Array | None  # [b, n] False for a pair that does not count; None: all count


class Reduction(Protocol):
  """Reduces the term's values [b, n] over their `axis`: 1 for a result per row, 0 per column."""

  def start(self, size: int, values: Tree, axis: int) -> Tree:
    """The state of `size` rows or columns before any pair; `values` has shapes and dtypes."""

  def update(self, state: Tree, values: Tree, block: Block, axis: int) -> Tree:
    """The state after a block."""

  def finish(self, state: Tree) -> Tree:
    """The result."""

  def residual(self, result: Tree, cotangent: Tree) -> Tree:
    """What `pullback` needs of each row or column."""

  def pullback(self, residual: Tree, values: Tree, block: Block, axis: int) -> Tree:
    """The cotangents of a block's values."""


class Mergeable(Reduction, Protocol):
  """A reduction that several devices can share."""

  def merge(self, states: Tree) -> Tree:
    """The state of all pairs, given the states [n, …] of n disjoint parts of them."""


class Plan(NamedTuple):
  """The static arguments of a reduction."""

  rows: Reduction
  columns: Mergeable
  term: Callable[[Tree, Tree, Tree], Tree]  # values from scores and side data; hashable
  diagonal: bool  # whether pairs i = j count
  dtype: jnp.dtype  # of the vectors in the products
  block_shape: tuple[int, int]  # the maximum number of rows, and of columns, of a block
  mesh: jax.sharding.Mesh | None
  axes: tuple[str, ...]  # mesh axes over which rows and columns are sharded
  kernel: str  # 'scan' or 'pallas'
  groups: int = 1  # consecutive parts of the batch; pairs count within one
  gathered: int = 1  # shards of columns that a device gathers

  @property
  def shards(self) -> int:
    """The number of shards of the rows, and of the columns."""
    return 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in self.axes)

  @property
  def rings(self) -> int:
    """The number of rings of consecutive devices, each of which has full groups of the batch."""
    return math.gcd(self.groups, self.shards)

  @property
  def ring(self) -> tuple[tuple[str, ...], int, int]:
    """The mesh axes, the number of devices, and how many of them gather, for `ring`'s functions."""
    return self.axes, self.shards, self.gathered


@functools.partial(jax.jit, static_argnums=0)
def reduce(plan: Plan, rows: Operand, columns: Operand) -> tuple[Tree, Tree]:
  """The results of the plan's reductions: per row, and per column."""
  return _reduce(plan, rows, columns)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reduce(plan, rows, columns):
  return sharded(plan, _forward)(_cast(plan, rows), _cast(plan, columns))


def _reduce_forward(plan, rows, columns):
  results = _reduce(plan, rows, columns)
  return results, (rows, columns, results)


def _reduce_backward(plan, saved, cotangents):
  *operands, results = saved
  residuals = (
    plan.rows.residual(results[0], cotangents[0]),
    plan.columns.residual(results[1], cotangents[1]),
  )
  cast = [_cast(plan, operand) for operand in operands]
  gradients = sharded(plan, _backward)(*zip(cast, residuals, strict=True))
  return tuple(map(_as_cotangent, gradients, operands))


_reduce.defvjp(_reduce_forward, _reduce_backward)


def _cast(plan, operand):
  """The operand with vectors in the plan's dtype, and side data in float32 for its gradient."""

  def cast(a):
    return a.astype(accumulator(a.dtype)) if jnp.issubdtype(a.dtype, jnp.inexact) else a

  vectors = jax.tree.map(lambda a: a.astype(plan.dtype), operand.vectors)
  return operand._replace(vectors=vectors, data=jax.tree.map(cast, operand.data))


def _as_cotangent(gradient, operand):
  """Sums as the cotangent of an operand, in its dtypes."""
  vectors, scale, bias, data = gradient
  vectors = jax.tree.map(lambda a, b: a.astype(b.dtype), vectors, operand.vectors)
  data = jax.tree.map(
    lambda a, b: None if a is None else a.astype(b.dtype),
    data,
    operand.data,
    is_leaf=lambda a: a is None,
  )
  return Operand(vectors, scale, bias, exclude=None, data=data)


def sharded(plan, function):
  """`function` of each device's shard, in a ring over the plan's axes."""
  function = functools.partial(function, plan)
  if plan.rings == plan.shards < plan.groups:
    function = _of_each_group(plan, function)
  if plan.mesh is None:
    return function
  batch = jax.P(plan.axes)
  # The gradient of a scale comes back per row, and is summed outside of the shard_map: a psum in
  # here would count it once per device.
  return jax.shard_map(
    function, mesh=plan.mesh, in_specs=(batch, batch), out_specs=(batch, batch), check_vma=False
  )


def _of_each_group(plan, function):
  """Maps `function` over the groups of the batch on a device, small ones several at a time."""

  def of_each_group(*operands):
    count = plan.groups // plan.shards
    groups = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), operands)
    pairs = jax.tree.leaves(groups)[0].shape[1] ** 2
    together = math.prod(plan.block_shape) // pairs if plan.kernel == 'scan' else 1
    together = min(max(together, 1), count)
    results = jax.lax.map(lambda group: function(*group), groups, batch_size=together)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), results)

  return of_each_group


def _forward(plan, rows, columns):
  def visit(row_span, column_span, rows, row_state, columns, column_state):
    block = _block(plan, row_span, column_span, rows, columns)
    _, row_scores, column_scores = _scores(rows, columns)
    row_values = column_values = plan.term(row_scores, rows.data, columns.data)
    if columns.scale is not None:
      column_values = plan.term(column_scores, rows.data, columns.data)
    row_state = plan.rows.update(row_state, row_values, block, 1)
    column_state = plan.columns.update(column_state, column_values, block, 0)
    return row_state, column_state

  columns = ring.gather(columns, *plan.ring)
  row_count, column_count = _count(rows), _count(columns)
  scores = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct((row_count, column_count), accumulator(a.dtype)), rows.vectors
  )
  values = jax.eval_shape(plan.term, scores, rows.data, columns.data)
  row_start = plan.rows.start(row_count, values, 1)
  column_start = plan.columns.start(column_count, values, 0)
  row_state, column_state = _scan(plan, visit, rows, row_start, columns, column_start)
  if plan.gathered > 1:
    column_state = plan.columns.merge(ring.exchange(column_state, *plan.ring))
  return plan.rows.finish(row_state), plan.columns.finish(column_state)


def _backward(plan, rows_and_residual, columns_and_residual):
  def visit(row_span, column_span, rows, row_sums, columns, column_sums):
    (rows, row_residual), (columns, column_residual) = rows, columns
    block = _block(plan, row_span, column_span, rows, columns)
    products, row_scores, column_scores = _scores(rows, columns)
    data = rows.data, columns.data
    row_values, row_pull = column_values, column_pull = jax.vjp(plan.term, row_scores, *data)
    if not shared:
      column_values, column_pull = jax.vjp(plan.term, column_scores, *data)
    row_part = plan.rows.pullback(row_residual, row_values, block, 1)
    column_part = plan.columns.pullback(column_residual, column_values, block, 0)
    if shared:
      # Added before the matmuls: two of them instead of four.
      row_part, *data_parts = row_pull(_add(row_part, column_part))
      joined = column_part = row_part
    else:
      row_part, *data_parts = row_pull(row_part)
      column_part, *more = column_pull(column_part)
      data_parts = _add(_floating(data_parts), _floating(more))
      joined = jax.tree.map(
        lambda r, c: r * rows.scale[:, None] + c * columns.scale, row_part, column_part
      )
    row_part, column_part = (row_part, data_parts[0]), (column_part, data_parts[1])
    row_sums = _accumulate(row_sums, columns.vectors, joined, row_part, products, 1)
    column_sums = _accumulate(column_sums, rows.vectors, joined, column_part, products, 0)
    return row_sums, column_sums

  columns_and_residual = ring.gather(columns_and_residual, *plan.ring)
  rows, columns = rows_and_residual[0], columns_and_residual[0]
  shared = columns.scale is None
  row_start = _zeros(rows._replace(scale=None) if shared else rows)
  sums = _scan(plan, visit, rows_and_residual, row_start, columns_and_residual, _zeros(columns))
  sums = sums[0], ring.scatter(sums[1], *plan.ring)
  return _scaled(rows, *sums) if shared else sums


def _scaled(rows, row_sums, column_sums):
  """Gradients where one scale serves all pairs, which is applied after all blocks."""
  row_vectors, _, row_bias, row_data = row_sums
  column_vectors, _, _, column_data = column_sums
  # Σ_j g_ij x_i · y_j, where g are the cotangents of the scores.
  of_scale = sum(
    jnp.sum(x * gradient, 1)
    for x, gradient in zip(jax.tree.leaves(rows.vectors), jax.tree.leaves(row_vectors), strict=True)
  )
  row_vectors, column_vectors = jax.tree.map(
    lambda a: rows.scale[0] * a, (row_vectors, column_vectors)
  )
  return (row_vectors, of_scale, row_bias, row_data), (column_vectors, None, None, column_data)


def _scan(plan, visit, rows, row_sums, columns, column_sums):
  if plan.kernel == 'pallas':
    visit = pallas.on_chip(visit, plan.block_shape[1])
  if plan.rings < min(plan.groups, plan.shards):  # a shard has parts of groups
    visit = _within_groups(visit, _count(rows) * plan.shards // plan.groups)
  return ring.ring_scan(
    visit,
    rows,
    row_sums,
    columns,
    column_sums,
    block_shape=plan.block_shape,
    axes=plan.axes,
    shards=plan.shards,
    group=plan.gathered,
    rings=plan.rings,
  )


def _within_groups(visit, size):
  """A visit of the pairs within groups of so many rows; blocks without such pairs are skipped."""

  def visit_or_skip(row_span, column_span, rows, row_sums, columns, column_sums):
    spans = [span._replace(group=span.index // size) for span in (row_span, column_span)]
    (first, last), (first_column, last_column) = ((span.group[0], span.group[-1]) for span in spans)
    block = *spans, rows, row_sums, columns, column_sums
    skip = lambda *block: (block[3], block[5])  # noqa: E731
    return jax.lax.cond((first <= last_column) & (first_column <= last), visit, skip, *block)

  return visit_or_skip


def _scores(rows, columns):
  """A block's products, and its scores [b, n] for the rows' and for the columns' results."""
  products = jax.tree.map(lambda x, y: matmul(x, y, 1, 1), rows.vectors, columns.vectors)
  scores = jax.tree.map(lambda a: _affine(a, rows, 1), products)
  if columns.scale is None:
    return products, scores, scores
  return products, scores, jax.tree.map(lambda a: _affine(a, columns, 0), products)


def _affine(products, operand, axis):
  scores = products * jnp.expand_dims(operand.scale, axis)
  return scores if operand.bias is None else scores + jnp.expand_dims(operand.bias, axis)


def _block(plan, row_span, column_span, rows, columns):
  """The pairs of a block."""
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
  if row_span.group is not None:
    conditions.append(row_span.group[:, None] == column_span.group)
  counts = functools.reduce(jnp.logical_and, conditions) if conditions else None
  return Block(row_span, column_span, counts)


def _zeros(operand):
  """Sums of the gradients of an operand's vectors, scale, bias and side data, before any block."""
  parts = operand.vectors, operand.scale, operand.bias, _floating(operand.data)
  return jax.tree.map(lambda a: jnp.zeros(a.shape, accumulator(a.dtype)), parts)


def _accumulate(sums, others, joined, part, products, axis):
  """An operand's sums after a block.

  Args:
    sums: those before it, as `_zeros` gives them.
    others: the vectors of the other operand.
    joined: cotangents of the products, [b, n] each.
    part: cotangents of the scores, and of the operand's side data.
    products: those of the block.
    axis: 1 for the rows, 0 for the columns.
  """
  vectors, scale, bias, data = sums
  vectors = jax.tree.map(
    lambda total, pairs, other: total + matmul_pairs(pairs.astype(other.dtype), other, axis),
    vectors,
    joined,
    others,
  )
  parts = jax.tree.leaves(part[0])
  if scale is not None:
    for cotangent, product in zip(parts, jax.tree.leaves(products), strict=True):
      scale += jnp.sum(cotangent * product, axis)
  if bias is not None:
    for cotangent in parts:
      bias += jnp.sum(cotangent, axis)
  return vectors, scale, bias, _add(data, _floating(part[1]))


def _floating(tree):
  """The tree without its leaves of integers and booleans, which have no gradient."""
  return jax.tree.map(lambda a: a if jnp.issubdtype(a.dtype, jnp.inexact) else None, tree)


def _add(a, b):
  return jax.tree.map(jnp.add, a, b)


def _count(operand):
  return len(jax.tree.leaves(operand)[0])
