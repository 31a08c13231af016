"""Reductions of a block's values, each with its gradient."""

# ruff: noqa: D102 — `engine.Reduction` documents the methods.

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax.losses.pairwise.matmul import matmul, matmul_pairs


@dataclasses.dataclass(frozen=True)
class Softmax:
  """The log Σ exp of logits, and the expectation of other values under their softmax.

  Values are (logits [b, n], tree of [b, n], vectors of the rows and of the columns or None): what
  is averaged per row is the tree, and the vectors of the columns.
  """

  def start(self, size, values, axis):
    logits, pairs, vectors = values
    # Finite, so that the first difference of maxima is.
    greatest = jnp.full(size, jnp.finfo(logits.dtype).min)
    sums = jax.tree.map(lambda a: jnp.zeros(size, a.dtype), pairs)
    vector_sums = jax.tree.map(lambda a: jnp.zeros((size, a.shape[1]), a.dtype), vectors[axis])
    return greatest, jnp.zeros(size, logits.dtype), (sums, vector_sums)

  def update(self, state, values, block, axis):
    before, total, (sums, vector_sums) = state
    logits, pairs, vectors = values
    logits = mask(logits, block, -jnp.inf)
    greatest = jnp.maximum(before, jnp.max(logits, axis))
    weights = jnp.exp(logits - jnp.expand_dims(greatest, axis))
    block_total = jnp.sum(weights, axis)
    decay = jnp.exp(before - greatest)
    sums = jax.tree.map(
      lambda sums, a: sums * decay + jnp.sum(weights * mask(a, block, 0.0), axis), sums, pairs
    )
    vector_sums = jax.tree.map(
      lambda sums, a: sums * decay[:, None] + matmul_pairs(weights, a, axis),
      vector_sums,
      vectors[axis],
    )
    return greatest, total * decay + block_total, (sums, vector_sums)

  def merge(self, states):
    greatest = jnp.max(states[0], 0)
    decay = jnp.exp(states[0] - greatest)
    weighted = lambda a: jnp.sum(a * decay.reshape(*decay.shape, *[1] * (a.ndim - 2)), 0)  # noqa: E731
    return greatest, *jax.tree.map(weighted, states[1:])

  def finish(self, state):
    greatest, total, sums = state
    # Where no pair counts, every sum is 0.
    divisor = jnp.where(total == 0, 1.0, total)
    expected = jax.tree.map(lambda a: a / divisor.reshape(-1, *[1] * (a.ndim - 1)), sums)
    return greatest + jnp.log(total), expected

  def residual(self, result, cotangent):
    total, expected = result
    # Over +inf every exponential is 0: no gradient where no pair counts.
    total = jnp.where(total == -jnp.inf, jnp.inf, total)
    # The expectations are subtracted from the values in the cotangent of the logits.
    shift = cotangent[0]
    for a, slope in zip(jax.tree.leaves(expected), jax.tree.leaves(cotangent[1]), strict=True):
      shift -= jnp.sum((a * slope).reshape(len(a), -1), 1)
    return total, shift, cotangent[1]

  def pullback(self, residual, values, block, axis):
    total, shift, (slopes, vector_slopes) = residual
    logits, pairs, vectors = values
    weights = jnp.exp(mask(logits, block, -jnp.inf) - jnp.expand_dims(total, axis))
    slope = jnp.expand_dims(shift, axis)
    slopes = jax.tree.map(lambda a: jnp.expand_dims(a, axis), slopes)
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(pairs), strict=True):
      slope += a * mask(b, block, 0.0)
    of_vectors = list(jax.tree.map(jnp.zeros_like, vectors))
    if vector_slopes is not None:
      own, others = vector_slopes, vectors[axis]
      slope += matmul(own, others, 1, 1) if axis else matmul(others, own, 1, 1)
      of_vectors[axis] = matmul_pairs(weights, own, 1 - axis)
    return weights * slope, jax.tree.map(lambda a: weights * a, slopes), tuple(of_vectors)


@dataclasses.dataclass(frozen=True)
class Sum:
  """The sum of each array [b, n] of a tree."""

  def start(self, size, values, axis):
    return jax.tree.map(lambda a: jnp.zeros(size, a.dtype), values)

  def update(self, state, values, block, axis):
    return jax.tree.map(lambda total, a: total + jnp.sum(mask(a, block, 0.0), axis), state, values)

  def merge(self, states):
    return jax.tree.map(lambda a: jnp.sum(a, 0), states)

  def finish(self, state):
    return state

  def residual(self, result, cotangent):
    return cotangent

  def pullback(self, residual, values, block, axis):
    return jax.tree.map(
      lambda a, b: mask(jnp.broadcast_to(jnp.expand_dims(a, axis), b.shape), block, 0.0),
      residual,
      values,
    )


@dataclasses.dataclass(frozen=True)
class TopK:
  """The k greatest values of each row, and their columns."""

  k: int

  def start(self, size, values, axis):
    shape = (size, self.k)
    columns = jnp.full(shape, jnp.iinfo(jnp.int32).max, jnp.int32)
    return jnp.full(shape, -jnp.inf, values.dtype), columns

  def update(self, state, values, block, axis):
    values = mask(values, block, -jnp.inf)
    values, columns = lax.top_k(values, min(self.k, values.shape[axis]))
    values = jnp.concatenate([state[0], values], axis)
    columns = jnp.concatenate([state[1], block.columns.index[columns]], axis)
    # Two keys: the order of equal scores does not depend on the order of the blocks.
    values, columns = lax.sort((-values, columns), dimension=axis, num_keys=2)
    return -values[:, : self.k], columns[:, : self.k]

  def finish(self, state):
    values, columns = state
    return values, jnp.where(values == -jnp.inf, -1, columns)

  def residual(self, result, cotangent):
    return result[1], cotangent[0]

  def pullback(self, residual, values, block, axis):
    columns, cotangent = residual
    width = values.shape[axis]
    column = columns - block.columns.index[0]
    column = jnp.where((columns >= 0) & (column >= 0), column, width)
    row = jnp.arange(len(values))[:, None]
    spread = jnp.zeros_like(values).at[row, column].add(cotangent, mode='drop')
    return mask(spread, block, 0.0)


@dataclasses.dataclass(frozen=True)
class Nothing:
  """No result."""

  def start(self, size, values, axis):
    return ()

  def update(self, state, values, block, axis):
    return ()

  def merge(self, states):
    return ()

  def finish(self, state):
    return ()

  def residual(self, result, cotangent):
    return ()

  def pullback(self, residual, values, block, axis):
    return jax.tree.map(jnp.zeros_like, values)


def mask(values, block, otherwise):
  """The values, or `otherwise` where a pair does not count."""
  return values if block.counts is None else jnp.where(block.counts, values, otherwise)
