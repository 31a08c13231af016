"""The engine below the losses: streamed reductions over all pairs of two sets of vectors."""

from contrastive_jax.losses.pairwise.api import logsumexp, paired, sum, top_k

__all__ = ['logsumexp', 'paired', 'sum', 'top_k']
