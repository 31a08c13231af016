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
from contrastive_jax.losses.pairwise.ranking import Ranks, ranks
from contrastive_jax.losses.pairwise.sampling import sample

__all__ = [
  'Ranks',
  'Ring',
  'expectation',
  'logsumexp',
  'paired',
  'ranks',
  'sample',
  'sum',
  'threshold',
  'top_k',
]
