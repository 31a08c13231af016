"""A visit of a block of pairs as one Pallas TPU kernel, whose scores stay on the chip.

The block's columns, and what they gather, stay in the chip's vector memory (VMEM) while the rows
pass through it, a tile at a time: the scores of a tile are multiplied, reduced and dropped there.
The arithmetic is the visit's own, traced into the kernel, so that the scan and the kernel have one
definition. Where the program is compiled for another platform than a TPU, Pallas interprets it:
the same tiles in the same order, slow, for tests.

The kernels compile for TPU v5e, v5p, v6e and v7x (v4 and older refuse them), and are checked in
interpret mode against the scan. They have not run on an accelerator: nothing is known of their
speed, nor of their numbers there.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

Array = jax.Array
Tree = Any

# Blocks are multiples of the chip's vector registers' width.
_LANES = 128
_MOST_ROWS, _MOST_COLUMNS = 256, 1024
_COLUMN_BYTES = 2**20  # of the vectors of a block's columns
# What a kernel may take of VMEM: half of the least that a chip it compiles for has. The vectors of
# a block and their gradients, double-buffered, and the scores of a tile take 18 MiB at most.
_VMEM_BYTES = 32 * 2**20


def block_size(given: int | None, width: int, dtype: jnp.dtype) -> int:
  """The columns that the chip holds at a time.

  Args:
    given: what the caller asks for; None for the most that fit.
    width: D, of the vectors.
    dtype: of the vectors.

  Raises:
    ValueError: if the chip does not multiply the vectors' dtype, or does not hold a block of them,
      or not one of the given size.
  """
  if dtype not in (jnp.float32, jnp.bfloat16):
    raise ValueError(f"x and y are {dtype}; kernel='pallas' takes float32 and bfloat16")
  held = _COLUMN_BYTES // dtype.itemsize
  if width * _LANES > held:
    raise ValueError(
      f"x and y have {width} entries a vector; kernel='pallas' takes up to {held // _LANES} of "
      f"{dtype}; use kernel='scan'"
    )
  # A power of two, as batches are.
  most = min(1 << (held // width).bit_length() - 1, _MOST_COLUMNS)
  if given is None:
    return most
  if given % _LANES or not 0 < given <= most:
    raise ValueError(
      f"block_size = {given}; with kernel='pallas' and {width} entries a vector use a multiple of "
      f'{_LANES} up to {most}'
    )
  return given


def on_chip(
  visit: Callable[..., tuple[Tree, Tree]], block_size: int
) -> Callable[..., tuple[Tree, Tree]]:
  """A `visit` for `ring.ring_scan`, of any number of rows and at most `block_size` columns."""
  tile = min(_MOST_ROWS, block_size)

  @jax.custom_vjp
  def visit_on_chip(*block):
    # Decided where it is compiled: a machine without a TPU compiles for one too.
    return lax.platform_dependent(
      *block,
      tpu=functools.partial(_call, visit, tile, False),
      default=functools.partial(_call, visit, tile, True),
    )

  # A kernel has no derivative of its own; the gradient's is taken of the visit, off the chip.
  visit_on_chip.defvjp(
    lambda *block: (visit_on_chip(*block), block),
    lambda block, cotangents: jax.vjp(visit, *block)[1](cotangents),
  )
  return visit_on_chip


def _call(visit, tile, interpret, row_span, column_span, rows, row_sums, columns, column_sums):
  count = len(row_span.index)
  tile = min(tile, count)
  if count % tile and row_span.fresh is None:
    # What the last tile has beyond the rows is read as zeros: not fresh.
    row_span = row_span._replace(fresh=jnp.ones(count, bool))
  whole = (row_span, rows), (column_span, columns), row_sums, column_sums
  operands = jax.tree.map(_operand, whole)
  tiled = functools.partial(_tiled, tile)
  specs = tuple(
    jax.tree.map(spec, part) for spec, part in zip((tiled, _resident) * 2, whole, strict=True)
  )

  def kernel(row_refs, column_refs, row_sum_refs, start_refs, row_result_refs, column_sum_refs):
    @pl.when(pl.program_id(0) == 0)
    def _():
      jax.tree.map(_write, column_sum_refs, jax.tree.map(lambda ref: ref[...], start_refs))

    read_rows = functools.partial(_read, count if count % tile else None)
    read_columns = functools.partial(_read, None)
    row_span, rows = jax.tree.map(read_rows, row_refs, whole[0])
    column_span, columns = jax.tree.map(read_columns, column_refs, whole[1])
    row_sums = jax.tree.map(read_rows, row_sum_refs, whole[2])
    column_sums = jax.tree.map(read_columns, column_sum_refs, whole[3])
    results = visit(row_span, column_span, rows, row_sums, columns, column_sums)
    jax.tree.map(_write, (row_result_refs, column_sum_refs), results)

  inputs, sums = (len(jax.tree.leaves(part)) for part in (operands[:2], operands[2:]))
  results = pl.pallas_call(
    kernel,
    grid=(pl.cdiv(count, tile),),
    in_specs=specs,
    out_specs=specs[2:],
    out_shape=jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), operands[2:]),
    input_output_aliases={inputs + place: place for place in range(sums)},
    compiler_params=pltpu.CompilerParams(
      # One tile after another: the columns gather from all.
      dimension_semantics=('arbitrary',),
      vmem_limit_bytes=_VMEM_BYTES,
    ),
    interpret=interpret,
  )(*operands)
  return jax.tree.map(lambda a, b: a.reshape(b.shape), results, whole[2:])


def _operand(a):
  """An array as a TPU kernel takes it: of two axes, and not of booleans."""
  a = a.astype(jnp.int32) if a.dtype == bool else a
  return a[None] if a.ndim == 1 else a


def _tiled(tile, a):
  """A tile of an operand's rows, one after another."""
  if a.ndim == 1:
    return pl.BlockSpec((1, tile), lambda index: (0, index))
  return pl.BlockSpec((tile, a.shape[1]), lambda index: (index, 0))


def _resident(a):
  """All of an operand, throughout."""
  return pl.BlockSpec(a.shape if a.ndim == 2 else (1, *a.shape), lambda index: (0, 0))


def _read(count, ref, whole):
  """A tile of one of the visit's arrays; zeros beyond the `count` rows."""
  value = ref[...] if whole.ndim == 2 else ref[0]
  if count is not None:
    place = pl.program_id(0) * len(value) + lax.broadcasted_iota(jnp.int32, value.shape, 0)
    value = jnp.where(place < count, value, jnp.zeros_like(value))
  return value.astype(whole.dtype)


def _write(ref, value):
  ref[...] = value.reshape(ref.shape)
