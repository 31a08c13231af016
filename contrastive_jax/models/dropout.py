"""Dropout and stochastic depth, by random keys per example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Drop(NamedTuple):
  """Drops parts of a layer's residual branches in training.

  Attributes:
    keys: [B] random keys.
    units: probability of dropping a unit.
    path: probability of dropping a branch of an example.

  References:
    Srivastava et al., Dropout, 2014.
    Huang et al., Deep Networks with Stochastic Depth, 2016.
  """

  keys: jax.Array
  units: float
  path: float | jax.Array

  def __call__(self, x: jax.Array, branch: int) -> jax.Array:
    """Drops units of x [B, L, D], the output of a branch, and examples; keeps its expectation."""
    keys = fold(self.keys, branch)
    if self.units:
      kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.units, x.shape[1:]))(keys)
      x = jnp.where(kept, x / (1 - self.units), 0).astype(x.dtype)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.path))(fold(keys, 1))
    kept = kept.reshape(-1, *[1] * (x.ndim - 1))
    return jnp.where(kept, x / (1 - self.path), 0).astype(x.dtype)


def fold(keys: jax.Array, number) -> jax.Array:
  """Keys [B] that differ by a number."""
  return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
