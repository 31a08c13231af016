"""Streamed reductions over S = scale · x yᵀ + bias [B, B'], which is never stored.

`lax.scan` visits S in blocks; on a mesh the columns travel round a ring of groups of devices, so
that each pair is multiplied once in all. Forward and backward store nothing of size B × B': the
backward computes the blocks again, 4 block matmuls in all where dense takes 3. Scores and sums are
float32 whatever the dtype of the inputs; gradients have the dtypes of the inputs. For bfloat16
inputs the matmuls of the backward take the cotangents of the scores in bfloat16, too.

Second derivatives are exact and take the memory of S. They are reverse over reverse: JAX refuses
forward mode (`jax.jvp`, `jax.hessian`) with a TypeError.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses.pairwise import selection, terms
from contrastive_jax.losses.pairwise.arguments import (
  Integers,
  Numbers,
  Ring,
  Vectors,
  averaged_vectors,
  caller_term,
  integers,
  make_plan,
  operands,
)
from contrastive_jax.losses.pairwise.engine import Operand, reduce
from contrastive_jax.losses.pairwise.matmul import accumulator
from contrastive_jax.losses.pairwise.reductions import Nothing, Softmax, Sum, TopK

Array = jax.Array
Tree = Any


def logsumexp(
  x: Vectors,
  y: Vectors,
  term: Callable[..., Array] | None = None,
  *,
  rows: Tree = None,
  columns: Tree = None,
  scale: Numbers = 1.0,
  bias: Numbers | None = None,
  exclude: Integers | None = None,
  diagonal: bool = True,
  groups: int = 1,
  dtype: jnp.dtype | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | Ring | None = None,
  kernel: str = 'scan',
) -> tuple[Array, Array]:
  """Log Σ exp over each row and over each column of S = scale · x yᵀ + bias.

  With a term, of term(S, rows, columns): a bias per column, a weight or a temperature per pair, or
  a function of several products.

  Args:
    x: [B, D] vectors, one per row of S; or a tuple of k such arrays, whose D may differ: S is then
      a tuple of k matrices, visited together.
    y: [B', D] vectors, one per column of S, or a tuple of as many as in x.
    term: maps a block of scores [b, n] to logits that broadcast to [b, n]. Given `rows` or
      `columns`, it is called as `term(scores, rows, columns)` with those of the block. Scores are a
      tuple of k arrays where x is one. The term must be finite, with finite derivatives, at all
      pairs, also at those that do not count, and may close over no traced array: pass it as side
      data. Calls with the same term, the same object, share one compilation.
    rows: side data of the rows: a tree of arrays [B, …], of which the term gets [b, …].
      Differentiable where floating; float32 in the term.
    columns: side data of the columns: a tree of arrays [B', …], of which the term gets [n, …].
    scale: scalar; or a pair: scalar or [B], for the results of the rows, and scalar or [B'], for
      those of the columns. It multiplies all k products.
    bias: added to every score, in the form of `scale`. Default: 0.
    exclude: [B] integers, or a pair of [B] and [B']; pairs i ≠ j of the same integer do not count.
    diagonal: whether pairs i = j count.
    groups: G, a divisor of B = B'; pairs count within each of G slices of B / G consecutive rows
      and columns, whatever the mesh. If every group is full shards, or every shard full groups,
      vectors stay within their group's devices; otherwise several groups share a ring.
    dtype: of the vectors in the products; by default the one that x and y promote to. Each gradient
      is summed in float32 and returned in the dtype of its argument.
    block_size: a block has block_size rows and half as many columns; by default 1,024 × 512, whose
      scores take 2 MiB.
    mesh: the mesh over whose axes named 'data' and 'fsdp' the vectors are sharded (they are
      replicated over its other axes); or a `Ring` of it, with a limit of memory; None for one
      device.
    kernel: 'scan', or 'pallas': a TPU kernel that keeps the scores in VMEM, for float32 with D up
      to 2,048 and bfloat16 with D up to 4,096, without a term. It compiles for TPU v5e and newer,
      is tested in interpret mode, which any other platform gets and which is slow, and has not run
      on a TPU. `block_size` is then the number of columns on the chip, a multiple of 128.

  Returns:
    [B] and [B'], float32. −inf, with no gradient, where no pair counts.

  Raises:
    ValueError: if shapes do not match, B or B' does not divide over the mesh or into the groups, or
      the kernel does not take the term, the dtype or D of the vectors, or the block size.

  >>> rows, columns = logsumexp(jnp.eye(2), jnp.eye(2))
  >>> rows.round(4)      # log(e + 1)
  Array([1.3133, 1.3133], dtype=float32)
  >>> biased = lambda scores, rows, columns: scores + columns
  >>> logsumexp(jnp.eye(2), jnp.eye(2), biased, columns=jnp.array([0.0, 1.0]))[0].round(4)
  Array([1.6931, 2.1269], dtype=float32)
  """
  both = operands(x, y, scale=scale, bias=bias, exclude=exclude, rows=rows, columns=columns)
  if kernel == 'pallas' and (term is not None or isinstance(x, tuple)):
    raise ValueError("kernel='pallas' takes no term and one product; use kernel='scan'")
  values = terms.Averaged(terms.Logits(caller_term(term, x, rows, columns)))
  plan = make_plan(
    *(Softmax(), Softmax(), values, both),
    diagonal=diagonal,
    groups=groups,
    block_size=block_size,
    mesh=mesh,
    kernel=kernel,
    dtype=dtype,
  )
  return tuple(total for total, _ in reduce(plan, *both))


def sum(
  x: Vectors,
  y: Vectors,
  term: Callable[..., Tree],
  *,
  rows: Tree = None,
  columns: Tree = None,
  scale: Numbers = 1.0,
  bias: Numbers | None = None,
  exclude: Integers | None = None,
  positive: Integers | None = None,
  diagonal: bool = True,
  groups: int = 1,
  dtype: jnp.dtype | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | Ring | None = None,
) -> tuple[Tree, Tree]:
  """Σ term over each row and over each column of S = scale · x yᵀ + bias.

  Args:
    x: as in `logsumexp`.
    y: as in `logsumexp`.
    term: as in `logsumexp`; may return a tree of arrays. Given `positive`, it is called as
      `term(scores, positive)` with booleans [b, n].
    rows: as in `logsumexp`.
    columns: as in `logsumexp`.
    scale: as in `logsumexp`.
    bias: as in `logsumexp`.
    exclude: as in `logsumexp`.
    positive: [B] integers, or a pair of [B] and [B']; pairs of the same integer are positive.
    diagonal: whether pairs i = j count.
    groups: as in `logsumexp`.
    dtype: as in `logsumexp`.
    block_size: as in `logsumexp`.
    mesh: as in `logsumexp`.

  Returns:
    [B] and [B'], float32, or trees of these in the form of the term. 0 where no pair counts.

  Raises:
    ValueError: as `logsumexp`, or if both `positive` and side data are given.

  >>> rows, columns = sum(jnp.eye(3), jnp.eye(3), jnp.square, scale=2.0)
  >>> rows
  Array([4., 4., 4.], dtype=float32)
  >>> near = lambda scores, rows, columns: scores * (abs(rows[:, None] - columns) < 2)
  >>> ones, age = jnp.ones((3, 1)), jnp.array([20.0, 21.0, 40.0])
  >>> sum(ones, ones, near, rows=age, columns=age)[0]
  Array([2., 2., 1.], dtype=float32)
  """
  values = caller_term(term, x, rows, columns)
  if positive is not None:
    if values.takes == 'data':
      raise ValueError('positive was given with rows or columns; put the labels into these')
    values = terms.Term(term, 'positive')
  both: tuple[Operand, ...] = operands(
    x, y, scale=scale, bias=bias, exclude=exclude, rows=rows, columns=columns
  )
  if positive is not None:
    sizes = tuple(len(jax.tree.leaves(operand)[0]) for operand in both)
    labels = integers('positive', positive, sizes)
    both = tuple(a._replace(data=b) for a, b in zip(both, labels, strict=True))
  plan = make_plan(
    *(Sum(), Sum(), values, both),
    diagonal=diagonal,
    groups=groups,
    dtype=dtype,
    block_size=block_size,
    mesh=mesh,
  )
  return reduce(plan, *both)


def expectation(
  x: Vectors,
  y: Vectors,
  values: Callable[..., Tree] | tuple[Array | None, Array | None],
  term: Callable[..., Array] | None = None,
  *,
  rows: Tree = None,
  columns: Tree = None,
  scale: Numbers = 1.0,
  bias: Numbers | None = None,
  exclude: Integers | None = None,
  diagonal: bool = True,
  groups: int = 1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | Ring | None = None,
) -> tuple[tuple[Tree, Array], tuple[Tree, Array]]:
  """Expectations under the softmax of each row, and of each column, and its logsumexp.

      E_i = Σⱼ exp(sᵢⱼ) vᵢⱼ / Σⱼ exp(sᵢⱼ),   S = scale · x yᵀ + bias, or term(S, rows, columns)

  Args:
    x: as in `logsumexp`.
    y: as in `logsumexp`.
    values: v, a function of the scores and the side data that is called as a term and may return a
      tree; or a pair of vectors: [B, E], averaged per column, and [B', E], averaged per row, of
      which one may be None. Differentiable.
    term: the logits, as in `logsumexp`; by default the scores.
    rows: as in `logsumexp`.
    columns: as in `logsumexp`.
    scale: as in `logsumexp`.
    bias: as in `logsumexp`.
    exclude: as in `logsumexp`.
    diagonal: whether pairs i = j count.
    groups: as in `logsumexp`.
    block_size: as in `logsumexp`.
    mesh: as in `logsumexp`.

  Returns:
    Of the rows: the expectation, [B], a tree of [B], or [B, E] (None without vectors to average),
    and the logsumexp [B], float32; and the same of the columns. Where no pair counts, they are 0
    and −inf with no gradient.

  Raises:
    ValueError: as `logsumexp`.

  >>> is_pair = lambda scores: scores > 0
  >>> (rows, _), _ = expectation(jnp.eye(2), jnp.eye(2), is_pair, scale=jnp.log(3.0))
  >>> rows.round(2)      # 3 / (3 + 1)
  Array([0.75, 0.75], dtype=float32)
  >>> (rows, _), _ = expectation(jnp.eye(2), jnp.eye(2), (None, jnp.eye(2)), diagonal=False)
  >>> rows
  Array([[0., 1.],
         [1., 0.]], dtype=float32)
  """
  both: tuple[Operand, ...] = operands(
    x, y, scale=scale, bias=bias, exclude=exclude, rows=rows, columns=columns
  )
  logits = terms.Logits(caller_term(term, x, rows, columns) if term else terms.Term(None))
  if callable(values):
    averaged = terms.Averaged(logits, caller_term(values, x, rows, columns))
  else:
    averaged = terms.Averaged(logits, vectors=True)
    both = tuple(
      operand._replace(data=(operand.data, averaged_vectors(part, operand)))
      for operand, part in zip(both, values, strict=True)
    )
  plan = make_plan(
    *(Softmax(), Softmax(), averaged, both),
    diagonal=diagonal,
    groups=groups,
    block_size=block_size,
    mesh=mesh,
  )
  place = 0 if callable(values) else 1
  of_rows, of_columns = ((expected[place], total) for total, expected in reduce(plan, *both))
  return of_rows, of_columns


def top_k(
  x: Vectors,
  y: Vectors,
  k: int,
  term: Callable[..., Array] | None = None,
  *,
  rows: Tree = None,
  columns: Tree = None,
  scale: Array | float = 1.0,
  exclude: Integers | None = None,
  diagonal: bool = True,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | Ring | None = None,
) -> tuple[Array, Array]:
  """The k greatest scores of each row of S = scale · x yᵀ, and their columns.

  With a term, those of term(S, rows, columns).

  Args:
    x: as in `logsumexp`.
    y: as in `logsumexp`.
    k: how many to return; at most B'.
    term: as in `logsumexp`.
    rows: as in `logsumexp`.
    columns: as in `logsumexp`.
    scale: scalar.
    exclude: as in `logsumexp`.
    diagonal: whether pairs i = j count.
    block_size: a block has block_size / 4 rows and 8 · block_size columns; by default 256 × 8,192,
      whose scores take 8 MiB.
    mesh: as in `logsumexp`.

  Returns:
    [B, k] scores, float32, in descending order, and [B, k] columns, int32; of equal scores the
    lower column first. −inf and −1 where fewer than k pairs count.

  Raises:
    ValueError: as `logsumexp`, or if k exceeds B'.

  >>> top_k(jnp.eye(3), jnp.eye(3), 2)[1]
  Array([[0, 1],
         [1, 0],
         [2, 0]], dtype=int32)
  """
  both = operands(x, y, scale=scale, exclude=exclude, rows=rows, columns=columns)
  width = len(jax.tree.leaves(y)[0])
  if not 1 <= k <= width:
    raise ValueError(f'k = {k} of {width} columns; use 1 to {width}')
  values = terms.Logits(caller_term(term, x, rows, columns))
  plan = make_plan(
    *(TopK(k), Nothing(), values, both),
    diagonal=diagonal,
    block_size=block_size,
    mesh=mesh,
    wide=True,
  )
  return reduce(plan, *both)[0]


def threshold(
  x: Vectors,
  y: Vectors,
  term: Callable[..., Array] | None = None,
  *,
  fraction: Array | float | None = None,
  count: Array | float | None = None,
  rows: Tree = None,
  columns: Tree = None,
  scale: Array | float = 1.0,
  exclude: Integers | None = None,
  diagonal: bool = True,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | Ring | None = None,
) -> tuple[Array, Array]:
  """The score over which lies a fraction of each row of S = scale · x yᵀ, exactly.

  Radix selection on the bits of the scores: four passes with 256 counters per row. Scores over the
  threshold belong to the fraction, and those equal to it by a share, which makes the size of the
  fraction exact: #{s > threshold} + share · #{s = threshold} = fraction · #{pairs that count}.

  A reduction with the same vectors, term, scale, block_size and mesh may compare its scores with
  the threshold: on a CPU they have the same bits. On GPUs, whose matmuls XLA tunes per program,
  this has not been tested.

  Args:
    x: as in `logsumexp`.
    y: as in `logsumexp`.
    term: as in `logsumexp`.
    fraction: of the pairs that count, over 0 and at most 1: scalar or [B].
    count: a number of pairs in place of a fraction, not necessarily whole: scalar or [B]; all
      pairs where fewer count.
    rows: as in `logsumexp`.
    columns: as in `logsumexp`.
    scale: scalar.
    exclude: as in `logsumexp`.
    diagonal: whether pairs i = j count.
    block_size: as in `logsumexp`.
    mesh: as in `logsumexp`.

  Returns:
    [B] thresholds, float32, and [B] shares, in (0, 1]; +inf and 0 where no pair counts. They have
    no gradient.

  Raises:
    ValueError: as `logsumexp`, or unless one of `fraction` and `count` is given.

  >>> x, y = jnp.ones((1, 1)), jnp.array([[4.0], [1.0], [3.0], [2.0]])
  >>> threshold(x, y, fraction=0.5)
  (Array([3.], dtype=float32), Array([1.], dtype=float32))
  >>> threshold(x, y, count=2.25)
  (Array([2.], dtype=float32), Array([0.25], dtype=float32))
  """
  if (fraction is None) == (count is None):
    raise ValueError(f'fraction = {fraction} and count = {count}; give one of them')
  if isinstance(fraction, float | int) and not 0 < fraction <= 1:
    raise ValueError(f'fraction = {fraction}; use a number over 0 and at most 1')
  both = operands(x, y, scale=scale, exclude=exclude, rows=rows, columns=columns)
  row_operand, column_operand = jax.lax.stop_gradient(both)
  values = selection.Digits(terms.Logits(caller_term(term, x, rows, columns)))
  plan = make_plan(
    *(selection.Histogram(), Nothing(), values, both),
    diagonal=diagonal,
    block_size=block_size,
    mesh=mesh,
  )
  size = len(jax.tree.leaves(x)[0])
  dtype = accumulator(plan.dtype)

  def histogram(prefix, shift):
    data = row_operand.data, prefix, jnp.full_like(prefix, shift)
    return reduce(plan, row_operand._replace(data=data), column_operand)[0]

  def rank(total):
    wanted = count if fraction is None else fraction * total
    return jnp.minimum(jnp.asarray(wanted, dtype), total)

  return selection.select(histogram, rank, size, dtype)


def paired(x: Array, y: Array) -> Array:
  """The products x_i · y_i of two [B, D], float32 [B]."""
  dtype = accumulator(jnp.promote_types(x.dtype, y.dtype))
  return jnp.sum(x.astype(dtype) * y.astype(dtype), axis=1)
