"""The random keys of a model's parameters."""

import jax
import numpy as np


class ParameterKeys:
  """Draws the keys of `nnx.Rngs(params=key)`, counted in Python.

  `nnx.Rngs` counts in an array. In a trace, that array is a tracer: each key adds operations, and
  Flax asks for its sharding, for which JAX composes an error message. That is over half of the time
  to trace a model.
  """

  def __init__(self, key: jax.Array):
    self._key, self._count = key, 0

  def params(self) -> jax.Array:
    """Returns the next key."""
    key = jax.random.fold_in(self._key, np.uint32(self._count))
    self._count += 1
    return key
