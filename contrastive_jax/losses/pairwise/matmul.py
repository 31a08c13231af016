"""Matmuls of blocks, summed in float32."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array


def matmul(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
  """Contracts `a_axis` of `a` with `b_axis` of `b`, in float32 at least."""
  # Accelerators multiply float32 at a lower precision unless told otherwise.
  precision = lax.Precision.DEFAULT if a.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
  return lax.dot_general(
    a,
    b,
    (((a_axis,), (b_axis,)), ((), ())),
    precision=precision,
    preferred_element_type=accumulator(a.dtype),
  )


def matmul_pairs(pairs: Array, vectors: Array, axis: int) -> Array:
  """Contracts `axis` of a block of pairs [b, n] with the first axis of `vectors`."""
  return matmul(pairs, vectors, 1, 0) if axis else _contract_rows(pairs, vectors)


def _contract_rows(a, b):
  """Contracts the rows of `a` with the rows of `b`."""

  def transposed(a, b):
    # XLA's fast matmul on CPUs contracts the last axis of its left operand; the plain form takes
    # 1.6 times as long. The barriers keep XLA from canceling the transposes.
    product = matmul(lax.optimization_barrier(b.T), a, 1, 0)
    return lax.optimization_barrier(product).T

  plain = functools.partial(matmul, a_axis=0, b_axis=0)
  return lax.platform_dependent(a, b, cpu=transposed, default=plain)


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
  """The dtype of scores and sums over vectors of `dtype`."""
  return jnp.promote_types(dtype, jnp.float32)
