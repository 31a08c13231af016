"""Visits a block of pairs in one Pallas TPU kernel, which keeps the scores in VMEM.

The columns of the block and their accumulators stay in the chip's vector memory (VMEM) while the
rows pass through in tiles: the scores of a tile are computed, reduced and dropped there. The kernel
traces the same `visit` as the scan, so both have one definition. On other platforms than TPUs
Pallas interprets it: the same tiles in the same order, slow, for tests.

The kernels compile for TPU v5e, v5p, v6e and v7x (v4 and older refuse them) and are tested in
interpret mode against the scan. They have not run on a TPU.
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

_LANES = 128  # the width of a vector register: blocks are multiples of it
_MAX_ROWS, _MAX_COLUMNS = 256, 1024
_COLUMN_BYTES = 2**20  # of the vectors of a block's columns
# VMEM limit of a kernel: half of the VMEM of the smallest chip that it compiles for. The vectors of
# a block and their gradients, double-buffered, and the scores of a tile take at most 18 MiB.
_VMEM_BYTES = 32 * 2**20


def block_size(given: int | None, width: int, dtype: jnp.dtype) -> int:
  """The number of columns on the chip at a time.

  Args:
    given: the caller's choice; None for the maximum that fits.
    width: D, of the vectors.
    dtype: of the vectors.

  Raises:
    ValueError: if the kernel does not take the dtype, or a block of the given size and width does
      not fit.
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
  most = min(1 << (held // width).bit_length() - 1, _MAX_COLUMNS)
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
  """A `visit` for `ring.ring_scan` as a kernel, of blocks of at most `block_size` columns."""
  tile = min(_MAX_ROWS, block_size)

  @jax.custom_vjp
  def visit_on_chip(*block):
    # Chosen by the platform that it is compiled for: machines without a TPU compile for TPUs, too.
    return lax.platform_dependent(
      *block,
      tpu=functools.partial(_call, visit, tile, False),
      default=functools.partial(_call, visit, tile, True),
    )

  # Pallas does not differentiate the kernel; second derivatives are those of the plain visit.
  visit_on_chip.defvjp(
    lambda *block: (visit_on_chip(*block), block),
    lambda block, cotangents: jax.vjp(visit, *block)[1](cotangents),
  )
  return visit_on_chip


def _call(visit, tile, interpret, row_span, column_span, rows, row_sums, columns, column_sums):
  count = len(row_span.index)
  tile = min(tile, count)
  if count % tile and row_span.fresh is None:
    # The last tile reads zeros beyond the rows, which are not fresh.
    row_span = row_span._replace(fresh=jnp.ones(count, bool))
  whole = (row_span, rows), (column_span, columns), row_sums, column_sums
  operands = jax.tree.map(_operand, whole)
  tiled = functools.partial(_tiled, tile)
  specs = (
    jax.tree.map(tiled, whole[0]),
    jax.tree.map(_resident, whole[1]),
    jax.tree.map(tiled, whole[2]),
    jax.tree.map(_resident, whole[3]),
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
      # Tiles run in order: the columns accumulate over all of them.
      dimension_semantics=('arbitrary',),
      vmem_limit_bytes=_VMEM_BYTES,
    ),
    interpret=interpret,
  )(*operands)
  return jax.tree.map(lambda a, b: a.reshape(b.shape), results, whole[2:])


def _operand(a):
  """An array in a form that TPU kernels take: two axes, integers for booleans."""
  a = a.astype(jnp.int32) if a.dtype == bool else a
  return a[None] if a.ndim == 1 else a


def _tiled(tile, a):
  """The spec of an operand of which each step sees the next tile of rows."""
  if a.ndim == 1:
    return pl.BlockSpec((1, tile), lambda index: (0, index))
  return pl.BlockSpec((tile, a.shape[1]), lambda index: (index, 0))


def _resident(a):
  """The spec of an operand that each step sees whole."""
  return pl.BlockSpec(a.shape if a.ndim == 2 else (1, *a.shape), lambda index: (0, 0))


def _read(count, ref, whole):
  """A tile of an array of the visit; zeros beyond the `count` rows."""
  value = ref[...] if whole.ndim == 2 else ref[0]
  if count is not None:
    place = pl.program_id(0) * len(value) + lax.broadcasted_iota(jnp.int32, value.shape, 0)
    value = jnp.where(place < count, value, jnp.zeros_like(value))
  return value.astype(whole.dtype)


def _write(ref, value):
  ref[...] = value.reshape(ref.shape)
