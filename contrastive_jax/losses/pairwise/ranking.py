"""Ranks of positives among all scores of their row, and of their column."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax.losses.pairwise import arguments, engine, ring
from contrastive_jax.losses.pairwise.matmul import accumulator, matmul

Array = jax.Array

_LONGEST = 2**15  # edge of a block, of which two counts share 32 bits


class Ranks(NamedTuple):
  """Where the greatest score of a positive stands in its row, or column; leaves [B], int32.

  Attributes:
    above: the number of scores that are greater, or NaN; all scores where no positive has a number.
    tied: the number of equal scores of other pairs.
    positive: the number of positives of that score; 0 where none has a number.
  """

  above: Array
  tied: Array
  positive: Array


class _State(NamedTuple):
  best: Array  # the greatest score of a positive
  positive: Array  # how many positives have it
  above: Array  # how many scores are not at most the best
  reached: Array  # how many scores are not less than the best


def ranks(
  x: Array,
  y: Array,
  positive: arguments.Integers,
  *,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[Ranks, Ranks]:
  """Ranks of each row's and each column's best positive in S = x yᵀ, without sorting.

  Two rounds over the blocks of S: the first finds the best positives, the second counts the scores
  above them, of rows and columns together. Both take their scores from one matmul, so equal vectors
  tie exactly. The first round skips blocks in which the integers of rows and columns have disjoint
  ranges: with both sides sorted by `positive` it takes few blocks, and the ranks of all rows and
  columns cost little over one product x yᵀ.

  Args:
    x: [B, D] vectors, one per row of S.
    y: [B', D] vectors, one per column.
    positive: [B] integers, or a pair of [B] and [B']; pairs of the same integer are positive.
      Vectors of a negative integer are padding, which is neither ranked nor counted.
    block_size: as in `logsumexp`.
    mesh: as in `logsumexp`.

  Returns:
    Ranks of the rows, and of the columns.

  Raises:
    ValueError: as `logsumexp`.

  >>> rows, columns = ranks(jnp.eye(3), jnp.eye(3), (jnp.array([0, 1, 1]), jnp.array([0, 2, 1])))
  >>> rows.above, rows.tied
  (Array([0, 1, 0], dtype=int32), Array([0, 1, 0], dtype=int32))
  """
  both: tuple[engine.Operand, ...] = arguments.operands(x, y, scale=1.0)
  sizes = tuple(len(operand.vectors) for operand in both)
  labels = arguments.integers('positive', positive, sizes)
  both = tuple(a._replace(data=b) for a, b in zip(both, labels, strict=True))
  plan = arguments.make_plan(
    *(None, None, None, both), diagonal=True, block_size=block_size, mesh=mesh
  )
  return _ranks(plan, *both)


@functools.partial(jax.jit, static_argnums=0)
def _ranks(plan, rows, columns):
  return engine.sharded(plan, _two_rounds)(rows, columns)


def _two_rounds(plan, rows, columns):

  def make_round(state, counting):
    state = ring.ring_scan(
      functools.partial(_visit, counting),
      (rows.vectors, rows.data),
      state[0],
      (columns.vectors, columns.data),
      state[1],
      block_shape=tuple(min(edge, _LONGEST) for edge in plan.block_shape),
      axes=plan.axes,
      shards=plan.shards,
    )
    return state, None

  # One traced round serves both: the program holds a single matmul, whose bits are the same.
  start = _start(rows.vectors), _start(columns.vectors)
  state, _ = lax.scan(make_round, start, jnp.array([False, True]))
  return tuple(map(_finish, state))


def _start(vectors):
  zeros = jnp.zeros(len(vectors), jnp.int32)
  return _State(jnp.full(len(vectors), -jnp.inf, accumulator(vectors.dtype)), zeros, zeros, zeros)


def _finish(state):
  tied = state.reached - state.above - state.positive
  return Ranks(state.above, tied, state.positive)


def _visit(counting, row_span, column_span, rows, row_state, columns, column_state):
  x, row_ids = rows[0], _fresh(rows[1], row_span)
  y, column_ids = columns[0], _fresh(columns[1], column_span)

  def visit(*states):
    scores = matmul(x, y, 1, 1)
    ids = row_ids, column_ids
    search, count = functools.partial(_search, scores, ids), functools.partial(_count, scores, ids)
    return lax.cond(counting, count, search, *states)

  wanted = counting | _overlap(row_ids, column_ids)
  return lax.cond(wanted, visit, lambda *states: states, row_state, column_state)


def _search(scores, ids, *states):
  """Updates the best positives."""
  positive = (ids[0][:, None] == ids[1]) & (ids[0][:, None] >= 0) & ~jnp.isnan(scores)

  def update(state, axis):
    best = jnp.max(scores, axis, where=positive, initial=-jnp.inf)
    best = jnp.maximum(best, state.best)
    equal = positive & (scores == jnp.expand_dims(best, axis))
    number = jnp.sum(equal, axis, dtype=jnp.int32)
    number += jnp.where(state.best == best, state.positive, 0)
    return state._replace(best=best, positive=number)

  return update(states[0], 1), update(states[1], 0)


def _count(scores, ids, *states):
  """Counts the scores that are not at most, and not less than, the best positive's."""

  def update(state, axis):
    best = jnp.expand_dims(state.best, axis)
    # One reduction of two counts, in the halves of 32 bits. The negations count NaN.
    pair = (~(scores <= best)).astype(jnp.uint32) + ((~(scores < best)).astype(jnp.uint32) << 16)
    pair = jnp.where(jnp.expand_dims(ids[axis] >= 0, 1 - axis), pair, 0)
    pair = jnp.where(ids[1 - axis] >= 0, jnp.sum(pair, axis, dtype=jnp.uint32), 0)
    above, reached = (part.astype(jnp.int32) for part in (pair & 0xFFFF, pair >> 16))
    return state._replace(above=state.above + above, reached=state.reached + reached)

  return update(states[0], 1), update(states[1], 0)


def _fresh(ids, span):
  """The ids of a block; −1 for what the previous block held."""
  return ids if span.fresh is None else jnp.where(span.fresh, ids, -1)


def _overlap(row_ids, column_ids):
  """Whether the ranges of the ids meet; where they don't, no pair is positive."""

  def span(ids):
    return jnp.min(ids, where=ids >= 0, initial=jnp.iinfo(ids.dtype).max), jnp.max(ids)

  (row_least, row_most), (column_least, column_most) = span(row_ids), span(column_ids)
  return (row_least <= column_most) & (column_least <= row_most)
