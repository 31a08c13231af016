"""Contrastive and captioning losses: pure functions, arrays in and a scalar out."""

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.labels.supervised import supervised
from contrastive_jax.losses.pairs.alignment import alignment
from contrastive_jax.losses.pairs.hard_negative import hard_negative
from contrastive_jax.losses.pairs.info_nce import info_nce
from contrastive_jax.losses.pairs.reweighting import reweighted_info_nce
from contrastive_jax.losses.pairs.sigmoid import sigmoid
from contrastive_jax.losses.pairs.uniformity import cross_uniformity, uniformity
from contrastive_jax.losses.tokens.captioning import captioning, captioning_streamed, count_tokens
from contrastive_jax.losses.views.decoupled import decoupled
from contrastive_jax.losses.views.nt_xent import nt_xent

__all__ = [
  'alignment',
  'captioning',
  'captioning_streamed',
  'count_tokens',
  'cross_uniformity',
  'decoupled',
  'hard_negative',
  'info_nce',
  'nt_xent',
  'pairwise',
  'reweighted_info_nce',
  'sigmoid',
  'supervised',
  'uniformity',
]
