"""Radix selection: the value of a rank in each row of scores that are never stored."""

# ruff: noqa: D102 — `engine.Reduction` documents the methods.

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses.pairwise.reductions import mask
from contrastive_jax.losses.pairwise.terms import Logits

Tree = Any

BITS = 8
RADIX = 1 << BITS


@dataclasses.dataclass(frozen=True)
class Digits:
  """The next digits of the keys that begin with their row's prefix, and `RADIX` for the others.

  The side data of the rows are the caller's, the prefix, and the shift of the digit.
  """

  logits: Logits

  def __call__(self, scores: Tree, rows: Tree, columns: Tree) -> jax.Array:
    """Digits [b, n], int32."""
    rows, prefix, shift = rows
    keys = to_keys(self.logits(scores, rows, columns))
    digits = (keys ^ prefix[:, None]) >> shift[:, None]
    return jnp.minimum(digits, RADIX).astype(jnp.int32)


def to_keys(values: jax.Array) -> jax.Array:
  """Floats as unsigned integers in the same order."""
  kind = jnp.dtype(f'uint{8 * values.dtype.itemsize}')
  values = jnp.where(values == 0, 0.0, values)  # −0 is 0
  bits = jax.lax.bitcast_convert_type(values, kind)
  return jnp.where(bits >> (8 * values.dtype.itemsize - 1) == 1, ~bits, bits | _top_bit(kind))


def from_keys(keys: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """The floats of keys."""
  top = _top_bit(keys.dtype)
  return jax.lax.bitcast_convert_type(jnp.where(keys & top != 0, keys ^ top, ~keys), dtype)


def _top_bit(kind):
  return jnp.asarray(1 << (8 * kind.itemsize - 1), kind)


@dataclasses.dataclass(frozen=True)
class Histogram:
  """Counts of each digit in each row; other values are dropped. Forward only."""

  def start(self, size, values, axis):
    return jnp.zeros((size, RADIX), jnp.int32)

  def update(self, state, values, block, axis):
    values = mask(values, block, RADIX)
    return state.at[jnp.arange(len(state))[:, None], values].add(1, mode='drop')

  def finish(self, state):
    return state


def select(histogram, rank, size, dtype):
  """The value of a rank among those of each row, by radix selection on its bits.

  Args:
    histogram: [size, 256] counts of the digit at a shift, of the keys that have a prefix.
    rank: the rank [size], not necessarily whole, of the number of values [size].
    size: the number of rows.
    dtype: of the values.

  Returns:
    [size] values, and [size] shares of them.
  """
  bits = jnp.finfo(dtype).bits

  def narrow(state, shift):
    prefix, above, total, _ = state
    counts = histogram(prefix, shift)
    total = jnp.maximum(total, jnp.sum(counts, 1, jnp.int32))  # the first digit's histogram has all
    # How many are at or over each digit; the last that has enough is the digit of the value.
    at_least = above[:, None] + jnp.cumsum(counts[:, ::-1], 1, jnp.int32)[:, ::-1]
    enough = at_least >= rank(total.astype(dtype))[:, None]
    digit = jnp.maximum(jnp.sum(enough, 1) - 1, 0)[:, None]
    ties = jnp.take_along_axis(counts, digit, 1)[:, 0]
    above = jnp.take_along_axis(at_least, digit, 1)[:, 0] - ties
    return (prefix | digit[:, 0].astype(prefix.dtype) << shift, above, total, ties), None

  zeros = jnp.zeros(size, jnp.int32)
  start = jnp.zeros(size, f'uint{bits}'), zeros, zeros, zeros
  shifts = jnp.arange(bits - BITS, -1, -BITS).astype(start[0].dtype)
  (key, above, total, ties), _ = jax.lax.scan(narrow, start, shifts)
  share = (rank(total.astype(dtype)) - above) / jnp.maximum(ties, 1)
  none = total == 0
  return (
    jnp.where(none, jnp.inf, from_keys(key, dtype)),
    jnp.where(none, 0.0, jnp.clip(share, 0.0, 1.0)),
  )
