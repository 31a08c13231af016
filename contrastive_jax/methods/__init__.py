"""Methods: losses with trainable heads, or with memory between steps, and pure losses by name."""

from contrastive_jax.methods.method import Method, Momentum, Result, Sizes, Slot
from contrastive_jax.methods.objective import Objective
from contrastive_jax.methods.registry import METHODS, names

__all__ = [
  'METHODS',
  'Method',
  'Momentum',
  'Objective',
  'Result',
  'Sizes',
  'Slot',
  'names',
]
