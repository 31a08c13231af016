"""Streamed reductions over S = scale · x yᵀ + bias [B, B'], which never exists.

S is visited in blocks by `lax.scan`; on a mesh the columns travel round a ring of devices,
so that each pair is multiplied once in the world. Nothing of size B × B' is kept, forward or
backward: the backward visits the same blocks again, 4 block matmuls in all where dense takes 3.
Scores and sums are float32 whatever the inputs' dtype; gradients have the inputs' dtypes. For
bfloat16 inputs the backward's matmuls take the scores' cotangents in bfloat16 too. Second
derivatives are exact, but take the memory of S; they are reverse-mode twice, since forward mode
(`jax.jvp`, `jax.hessian`) is refused by JAX with a TypeError.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from contrastive_jax.losses.pairwise import pallas
from contrastive_jax.losses.pairwise.engine import Plan, Side, accumulator, reduce
from contrastive_jax.losses.pairwise.reductions import _LogSumExp, _Nothing, _Sum, _TopK

Array = jax.Array
# A number for all pairs; or one for each row's scores and one for each column's, which then differ.
Numbers = Array | float | tuple[Array | float, Array | float]
# One integer a vector, for rows and columns alike; or one a row and one a column.
Integers = Array | tuple[Array, Array]

_BATCH_AXES = ('data', 'fsdp')
_BLOCK_BYTES = 4 * 2**20


def logsumexp(
  x: Array,
  y: Array,
  *,
  scale: Numbers = 1.0,
  bias: Numbers | None = None,
  exclude: Integers | None = None,
  diagonal: bool = True,
  dtype: jnp.dtype | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
  kernel: str = 'scan',
) -> tuple[Array, Array]:
  """Log Σ exp over each row and over each column of S = scale · x yᵀ + bias.

  Args:
    x: [B, D] vectors, one a row of S.
    y: [B', D] vectors, one a column of S.
    scale: scalar; or a pair: scalar or [B], for the rows' results, and scalar or [B'], for the
      columns'.
    bias: what is added to every score, in the form of `scale`. Default: 0.
    exclude: [B] integers, or a pair of [B] and [B']; pairs i ≠ j of the same integer do not count.
    diagonal: whether pairs i = j count.
    dtype: of the vectors in the products; by default the one that x and y promote to. Each gradient
      is summed in float32 and returned in the dtype of its own argument.
    block_size: the side of a square of as many pairs as are visited at a time; chosen from a memory
      budget by default.
    mesh: the mesh over which the vectors are sharded, by its axes named 'data' and 'fsdp' (others
      hold copies); None for one device.
    kernel: 'scan', which leaves to XLA where a block's scores lie; or 'pallas', a TPU kernel that
      keeps them on the chip, for float32 with D up to 2,048 and bfloat16 with D up to 4,096. It was
      compiled for TPUs, v5e and newer, and checked in interpret mode, which any other platform
      gets and which is slow; it has not run on an accelerator. `block_size` is the columns on the
      chip at a time then: a multiple of 128.

  Returns:
    [B] and [B'], float32. −inf, with no gradient, where no pair counts.

  Raises:
    ValueError: if shapes do not match, B or B' does not divide over the mesh, or the kernel does
      not take the vectors' dtype, their length or the block size.

  >>> rows, columns = logsumexp(jnp.eye(2), jnp.eye(2))
  >>> rows.round(4)      # log(e + 1)
  Array([1.3133, 1.3133], dtype=float32)
  """
  sides = _sides(x, y, scale=scale, bias=bias, exclude=exclude)
  plan = _plan(_LogSumExp(), _LogSumExp(), sides, diagonal, block_size, mesh, kernel, dtype)
  return reduce(plan, *sides)


def sum(
  x: Array,
  y: Array,
  term: Callable[..., Any],
  *,
  scale: Numbers = 1.0,
  bias: Numbers | None = None,
  exclude: Integers | None = None,
  positive: Integers | None = None,
  diagonal: bool = True,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[Any, Any]:
  """Σ term over each row and over each column of S = scale · x yᵀ + bias.

  Args:
    x: [B, D] vectors, one a row of S.
    y: [B', D] vectors, one a column of S.
    term: elementwise function of the scores [b, n], or, where `positive` is given, of the scores
      and of the booleans [b, n] that say which pairs are positive. It returns an array or a tree
      of arrays [b, n], closes over no traced array, and compiles once if it is one object.
    scale: as in `logsumexp`.
    bias: as in `logsumexp`.
    exclude: as in `logsumexp`.
    positive: [B] integers, or a pair of [B] and [B']; pairs of the same integer are positive.
    diagonal: whether pairs i = j count.
    block_size: as in `logsumexp`.
    mesh: as in `logsumexp`.

  Returns:
    [B] and [B'], float32, or trees of these in the form of the term. 0 where no pair counts.

  Raises:
    ValueError: if shapes do not match, or B or B' does not divide over the mesh.

  >>> rows, columns = sum(jnp.eye(3), jnp.eye(3), jnp.square, scale=2.0)
  >>> rows
  Array([4., 4., 4.], dtype=float32)
  """
  sides = _sides(x, y, scale=scale, bias=bias, exclude=exclude, positive=positive)
  reduction = _Sum(term, positive is not None)
  return reduce(_plan(reduction, reduction, sides, diagonal, block_size, mesh), *sides)


def top_k(
  x: Array,
  y: Array,
  k: int,
  *,
  scale: Array | float = 1.0,
  exclude: Integers | None = None,
  diagonal: bool = True,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[Array, Array]:
  """The k greatest of each row of S = scale · x yᵀ, and their columns.

  Args:
    x: [B, D] vectors, one a row of S.
    y: [B', D] vectors, one a column of S.
    k: how many to keep; at most B'.
    scale: scalar.
    exclude: as in `logsumexp`.
    diagonal: whether pairs i = j count.
    block_size: as in `logsumexp`.
    mesh: as in `logsumexp`.

  Returns:
    [B, k] scores, float32, in descending order, and [B, k] columns, int32; of equal scores the
    lower column first. −inf and −1 where fewer than k pairs count.

  Raises:
    ValueError: if shapes do not match, B or B' does not divide over the mesh, or k exceeds B'.

  >>> top_k(jnp.eye(3), jnp.eye(3), 2)[1]
  Array([[0, 1],
         [1, 0],
         [2, 0]], dtype=int32)
  """
  sides = _sides(x, y, scale=scale, exclude=exclude)
  if not 1 <= k <= len(y):
    raise ValueError(f'k = {k} of {len(y)} columns; use 1 to {len(y)}')
  rows, _ = reduce(_plan(_TopK(k), _Nothing(), sides, diagonal, block_size, mesh), *sides)
  return rows


def paired(x: Array, y: Array) -> Array:
  """The products x_i · y_i of two [B, D], float32 [B]."""
  dtype = accumulator(jnp.promote_types(x.dtype, y.dtype))
  return jnp.sum(x.astype(dtype) * y.astype(dtype), axis=1)


def _sides(x, y, *, scale, bias=None, exclude=None, positive=None):
  """What the rows and what the columns bring, of what the caller gave."""
  x, y = jnp.asarray(x), jnp.asarray(y)
  if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or 0 in (len(x), len(y)):
    raise ValueError(f"x is {x.shape} and y is {y.shape}; give [B, D] and [B', D], not empty")
  dtype = jnp.promote_types(x.dtype, y.dtype)
  sizes = len(x), len(y)
  scales = _numbers('scale', scale, sizes, accumulator(dtype))
  biases = (None, None) if bias is None else _numbers('bias', bias, sizes, accumulator(dtype))
  if not isinstance(scale, tuple) and not isinstance(bias, tuple):
    # One score a pair serves its row and its column.
    scales, biases = (scales[0], None), (biases[0], None)
  return tuple(
    map(
      Side,
      (x, y),
      scales,
      biases,
      _integers('exclude', exclude, sizes),
      _integers('positive', positive, sizes),
    )
  )


def _numbers(name, value, sizes, dtype):
  """A number for each row and one for each column."""
  values = value if isinstance(value, tuple) else (value, value)
  for part, size in zip(values, sizes, strict=True):
    allowed = ((), (size,)) if isinstance(value, tuple) else ((),)
    if jnp.shape(part) not in allowed:
      raise ValueError(
        f"{name} has shape {jnp.shape(part)}; give a scalar, or a pair of [B] and [B']"
      )
  return tuple(
    jnp.broadcast_to(jnp.asarray(part, dtype), size)
    for part, size in zip(values, sizes, strict=True)
  )


def _integers(name, value, sizes):
  """An integer for each row and one for each column, or None for both."""
  if value is None:
    return None, None
  values = value if isinstance(value, tuple) else (value, value)
  for part, size in zip(values, sizes, strict=True):
    if jnp.shape(part) != (size,) or not jnp.issubdtype(jnp.result_type(part), jnp.integer):
      raise ValueError(
        f'{name} has shape {jnp.shape(part)} and dtype {jnp.result_type(part)} for {size} vectors; '
        "give [B] integers, or a pair of [B] and [B']"
      )
  return tuple(map(jnp.asarray, values))


def _plan(
  row_reduction, column_reduction, sides, diagonal, block_size, mesh, kernel='scan', dtype=None
):
  """What to gather, in which blocks, and over which devices."""
  dtype = jnp.dtype(dtype or jnp.promote_types(*(side.vectors.dtype for side in sides)))
  if kernel == 'pallas':
    block_size = pallas.block_size(block_size, sides[0].vectors.shape[1], dtype)
  elif kernel != 'scan':
    raise ValueError(f"kernel = {kernel!r}; use 'scan' or 'pallas'")
  elif block_size is None:
    block_size = math.isqrt(_BLOCK_BYTES // 4)
  elif block_size < 1:
    raise ValueError(f'block_size = {block_size}; use 1 or more')
  axes = () if mesh is None else tuple(axis for axis in _BATCH_AXES if axis in mesh.shape)
  if mesh is not None and set(mesh.axis_types) != {AxisType.Auto}:
    raise ValueError(
      f'mesh has axis_types {mesh.axis_types}; make it with AxisType.Auto for every axis'
    )
  plan = Plan(row_reduction, column_reduction, diagonal, dtype, block_size, mesh, axes, kernel)
  for name, side in zip('xy', sides, strict=True):
    if len(side.vectors) % plan.shards:
      raise ValueError(
        f"{name} has {len(side.vectors)} rows, which do not divide over the mesh's {plan.shards} "
        f'shards; use a multiple of {plan.shards}'
      )
  return plan
