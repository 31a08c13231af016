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
from contrastive_jax.losses.pairwise.transport import biased, sinkhorn

__all__ = [
  'Ranks',
  'Ring',
  'biased',
  'expectation',
  'logsumexp',
  'paired',
  'ranks',
  'sample',
  'sinkhorn',
  'sum',
  'threshold',
  'top_k',
]
