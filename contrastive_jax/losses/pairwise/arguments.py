"""Checks what callers of the reductions give, and turns it into operands and a plan."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from contrastive_jax.losses.pairwise import pallas
from contrastive_jax.losses.pairwise.engine import Operand, Plan
from contrastive_jax.losses.pairwise.matmul import accumulator
from contrastive_jax.losses.pairwise.terms import Term

Array = jax.Array
Tree = Any
# One number for all pairs; or two, for the results of the rows and for those of the columns.
Numbers = Array | float | tuple[Array | float, Array | float]
# One integer per vector, for rows and columns alike; or a pair, per row and per column.
Integers = Array | tuple[Array, Array]
# [B, D]; or a tuple of k of these, for k products per pair.
Vectors = Array | tuple[Array, ...]

_BATCH_AXES = ('data', 'fsdp')
_BLOCK_BYTES = 4 * 2**20


class Ring(NamedTuple):
  """A mesh, and how much memory its devices may take to shorten the ring.

  On D devices columns travel round a ring in D hops, one after the other. Where groups of k devices
  gather their columns first, D / k hops remain. k is the largest divisor of D for which the
  gathered columns and their gradients take at most `gather_bytes` more than a ring of single
  devices. Results are the same but for the order of the sums.

  Attributes:
    mesh: the mesh.
    gather_bytes: bytes per device; 0 for a ring of single devices.
  """

  mesh: jax.sharding.Mesh
  gather_bytes: int = 64 * 2**20


def operands(
  x: Vectors,
  y: Vectors,
  *,
  scale: Numbers,
  bias: Numbers | None = None,
  exclude: Integers | None = None,
  rows: Tree = None,
  columns: Tree = None,
) -> tuple[Operand, Operand]:
  """The operands of the rows and of the columns; raises ValueError as the reductions say."""
  x, y = (tuple(map(jnp.asarray, a)) if isinstance(a, tuple) else jnp.asarray(a) for a in (x, y))
  sizes = _sizes(x, y)
  dtype = accumulator(jnp.result_type(*jax.tree.leaves((x, y))))
  scales = _numbers('scale', scale, sizes, dtype)
  biases = (None, None) if bias is None else _numbers('bias', bias, sizes, dtype)
  if not isinstance(scale, tuple) and not isinstance(bias, tuple):
    # One score per pair serves its row and its column.
    scales, biases = (scales[0], None), (biases[0], None)
  excludes = integers('exclude', exclude, sizes)
  data = side_data('rows', rows, sizes[0]), side_data('columns', columns, sizes[1])
  return (
    Operand(x, scales[0], biases[0], excludes[0], data[0]),
    Operand(y, scales[1], biases[1], excludes[1], data[1]),
  )


def caller_term(function, x: Vectors, rows: Tree, columns: Tree) -> Term:
  """The term of a caller, who may give side data."""
  takes = 'scores' if rows is None and columns is None else 'data'
  if function is None and isinstance(x, tuple):
    raise ValueError(f'x is a tuple of {len(x)} arrays; give a term of as many scores')
  if function is None and takes == 'data':
    raise ValueError('rows and columns are side data of a term; give a term, or leave them out')
  return Term(function, takes)


def side_data(name: str, data: Tree, size: int) -> Tree:
  """Side data as arrays; raises ValueError unless each leaf has `size` entries."""
  data = jax.tree.map(jnp.asarray, data)
  for leaf in jax.tree.leaves(data):
    if leaf.shape[:1] != (size,):
      raise ValueError(f'{name} has a leaf of shape {leaf.shape}; give [{size}, …], per vector')
  return data


def averaged_vectors(vectors: Array | None, operand: Operand) -> Array | None:
  """The vectors [B, E] that an expectation averages; raises ValueError for another shape."""
  size = len(jax.tree.leaves(operand)[0])
  if vectors is not None and (jnp.ndim(vectors) != 2 or len(vectors) != size):
    shape = jnp.shape(vectors)
    raise ValueError(f"values has shape {shape}; give [B, E] and [B', E] (here {size})")
  return side_data('values', vectors, size)


def integers(name: str, value: Integers | None, sizes: tuple[int, ...]) -> tuple:
  """An integer per row and one per column, or None for both."""
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


def make_plan(
  row_reduction,
  column_reduction,
  term,
  both: tuple[Operand, ...],
  *,
  diagonal: bool,
  block_size: int | None,
  mesh: jax.sharding.Mesh | Ring | None,
  kernel: str = 'scan',
  dtype: jnp.dtype | None = None,
  wide: bool = False,
  groups: int = 1,
) -> Plan:
  """What to reduce, in which blocks, and over which devices.

  Blocks are taller than wide, so that the sums of columns are read and written less often; or
  `wide`, for a reduction of rows that costs more per block than per column.
  """
  ring = Ring(mesh) if isinstance(mesh, jax.sharding.Mesh) else mesh
  mesh = None if ring is None else ring.mesh
  vectors = [operand.vectors for operand in both]
  dtype = jnp.dtype(dtype or jnp.result_type(*jax.tree.leaves(vectors)))
  if kernel == 'pallas':
    block_size = pallas.block_size(block_size, vectors[0].shape[1], dtype)
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
  fixed = row_reduction, column_reduction, term, diagonal, dtype, (0, 0), mesh, axes, kernel
  plan = Plan(*fixed, groups)
  sizes = [len(jax.tree.leaves(parts)[0]) for parts in vectors]
  if groups != 1:
    _check_groups(groups, *sizes)
  for name, count in zip('xy', sizes, strict=True):
    if count % plan.shards:
      raise ValueError(
        f"{name} has {count} rows, which do not divide over the mesh's {plan.shards} shards; use "
        f'a multiple of {plan.shards}'
      )
  rows = sizes[0] // (groups if plan.rings == plan.shards else plan.shards)
  plan = plan._replace(block_shape=_block_shape(rows, block_size, kernel, wide))
  return plan if ring is None else plan._replace(gathered=_gathered(plan, both, ring.gather_bytes))


def _block_shape(rows: int, block_size: int, kernel: str, wide: bool) -> tuple[int, int]:
  """The maximum number of a device's rows, and of columns, of a block."""
  if kernel == 'pallas':
    return rows, block_size  # all rows pass by the columns on the chip
  if wide:
    return max(block_size // 4, 1), 8 * block_size
  height = min(rows, block_size)
  return height, max(block_size**2 // (2 * height), 1)


def _check_groups(groups: int, rows: int, columns: int) -> None:
  if groups < 1 or rows != columns or rows % groups:
    raise ValueError(
      f'groups = {groups} for {rows} rows and {columns} columns; give as many rows as columns, and '
      'use a divisor of their number'
    )


def _gathered(plan: Plan, both: tuple[Operand, ...], max_bytes: int) -> int:
  """The number of devices that gather their columns."""
  devices = plan.shards // plan.rings
  rows, count = (len(jax.tree.leaves(operand)[0]) // plan.shards for operand in both)
  # Bytes of a device's own columns: what travels, its gradients, and the results of a reduction.
  width = plan.dtype.itemsize + 4
  largest = math.prod(plan.block_shape)
  leaves = jax.tree.leaves(both[1])
  own = count * (16 + sum(a.size // len(a) * (width if a.ndim > 1 else 8) for a in leaves))

  def taken(group):
    # Those of the next hop arrive beside them.
    copies = 1 if group == devices else 2
    # Larger blocks: scores, and what is computed from them.
    pairs = min(largest, rows * count * group)
    return group * copies * own + 5 * 4 * pairs

  divisors = (group for group in range(1, devices + 1) if devices % group == 0)
  least = 2 * own + 5 * 4 * min(largest, rows * count)
  return max(group for group in divisors if group == 1 or taken(group) - least <= max_bytes)


def _sizes(x, y):
  """B and B'."""
  parts = [list(a) if isinstance(a, tuple) else [a] for a in (x, y)]
  sizes = {tuple(len(a) if a.ndim == 2 else 0 for a in pair) for pair in zip(*parts, strict=False)}
  widths = [[a.shape[-1:] for a in side] for side in parts]
  alike = isinstance(x, tuple) == isinstance(y, tuple) and widths[0] == widths[1]
  both = sizes.pop() if alike and len(sizes) == 1 else (0, 0)
  if 0 in both:
    shapes = [', '.join(str(a.shape) for a in side) for side in parts]
    raise ValueError(
      f"x is {shapes[0]} and y is {shapes[1]}; give [B, D] and [B', D], not empty, or a tuple of "
      'as many of these in each'
    )
  return both


def _numbers(name, value, sizes, dtype):
  """A number per row and one per column."""
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
