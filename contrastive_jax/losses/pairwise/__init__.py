"""The engine below the losses: streamed reductions over all pairs of two sets of vectors."""

from contrastive_jax.losses.pairwise.api import (
  expectation,
  logsumexp,
  paired,
  sum,
  threshold,
  top_k,
)
from contrastive_jax.losses.pairwise.arguments import Ring

__all__ = ['Ring', 'expectation', 'logsumexp', 'paired', 'sum', 'threshold', 'top_k']
