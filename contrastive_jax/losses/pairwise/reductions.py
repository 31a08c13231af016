"""What a block's scores become: logsumexp, sum and top k, each with its gradient."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class _LogSumExp:
  """The greatest score so far, and the sum of exponentials over it."""

  def start(self, size, dtype):
    # Finite, so that the first difference of maxima is.
    return jnp.full(size, jnp.finfo(dtype).min), jnp.zeros(size, dtype)

  def update(self, state, scores, pairs, axis):
    before, total = state
    scores = _counted(scores, pairs, -jnp.inf)
    greatest = jnp.maximum(before, jnp.max(scores, axis))
    block_total = jnp.sum(jnp.exp(scores - jnp.expand_dims(greatest, axis)), axis)
    return greatest, total * jnp.exp(before - greatest) + block_total

  def finish(self, state):
    greatest, total = state
    return greatest + jnp.log(total)

  def residual(self, result, cotangent):
    # Over +inf every exponential is 0: no gradient where no pair counts.
    return jnp.where(result == -jnp.inf, jnp.inf, result), cotangent

  def pullback(self, residual, scores, pairs, axis):
    result, cotangent = (jnp.expand_dims(a, axis) for a in residual)
    return cotangent * jnp.exp(_counted(scores, pairs, -jnp.inf) - result)


@dataclasses.dataclass(frozen=True)
class _Sum:
  """The sum of a function of the scores."""

  term: Callable[..., Any]
  with_positive: bool

  def values(self, scores, pairs):
    arguments = (scores, pairs.positive) if self.with_positive else (scores,)
    return jax.tree.map(
      lambda value: _counted(value.astype(scores.dtype), pairs, 0.0), self.term(*arguments)
    )

  def start(self, size, dtype):
    score, positive = jnp.zeros((), dtype), jnp.zeros((), bool)
    arguments = (score, positive) if self.with_positive else (score,)
    return jax.tree.map(lambda _: jnp.zeros(size, dtype), jax.eval_shape(self.term, *arguments))

  def update(self, state, scores, pairs, axis):
    totals = jax.tree.map(lambda value: jnp.sum(value, axis), self.values(scores, pairs))
    return jax.tree.map(jnp.add, state, totals)

  def finish(self, state):
    return state

  def residual(self, result, cotangent):
    return cotangent

  def pullback(self, residual, scores, pairs, axis):
    _, pull = jax.vjp(lambda scores: self.values(scores, pairs), scores)
    cotangents = jax.tree.map(
      lambda a: jnp.broadcast_to(jnp.expand_dims(a, axis), scores.shape), residual
    )
    return pull(cotangents)[0]


@dataclasses.dataclass(frozen=True)
class _TopK:
  """The k greatest scores so far of each row, and their columns."""

  k: int

  def start(self, size, dtype):
    shape = (size, self.k)
    return jnp.full(shape, -jnp.inf, dtype), jnp.full(shape, jnp.iinfo(jnp.int32).max, jnp.int32)

  def update(self, state, scores, pairs, axis):
    scores = _counted(scores, pairs, -jnp.inf)
    values, where = lax.top_k(scores, min(self.k, scores.shape[axis]))
    values = jnp.concatenate([state[0], values], axis)
    where = jnp.concatenate([state[1], pairs.columns.index[where]], axis)
    # Two keys: the order of equal scores does not depend on the order of the visits.
    values, where = lax.sort((-values, where), dimension=axis, num_keys=2)
    return -values[:, : self.k], where[:, : self.k]

  def finish(self, state):
    values, where = state
    return values, jnp.where(values == -jnp.inf, -1, where)

  def residual(self, result, cotangent):
    return result[1], cotangent[0]

  def pullback(self, residual, scores, pairs, axis):
    where, cotangent = residual
    width = scores.shape[axis]
    column = where - pairs.columns.index[0]
    column = jnp.where((where >= 0) & (column >= 0), column, width)
    row = jnp.arange(len(scores))[:, None]
    spread = jnp.zeros_like(scores).at[row, column].add(cotangent, mode='drop')
    return _counted(spread, pairs, 0.0)


@dataclasses.dataclass(frozen=True)
class _Nothing:
  """No result."""

  def start(self, size, dtype):
    return ()

  def update(self, state, scores, pairs, axis):
    return ()

  def finish(self, state):
    return ()

  def residual(self, result, cotangent):
    return ()

  def pullback(self, residual, scores, pairs, axis):
    return jnp.zeros(())


def _counted(values, pairs, otherwise):
  return values if pairs.counts is None else jnp.where(pairs.counts, values, otherwise)
