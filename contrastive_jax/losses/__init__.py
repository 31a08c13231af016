"""Contrastive and captioning losses: pure functions, arrays in and a scalar out."""

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.alignment import alignment
from contrastive_jax.losses.captioning import captioning, captioning_streamed, count_tokens
from contrastive_jax.losses.decoupled import decoupled
from contrastive_jax.losses.hard_negative import hard_negative
from contrastive_jax.losses.info_nce import info_nce
from contrastive_jax.losses.nt_xent import nt_xent
from contrastive_jax.losses.reweighting import reweighted_info_nce
from contrastive_jax.losses.sigmoid import sigmoid
from contrastive_jax.losses.supervised import supervised
from contrastive_jax.losses.uniformity import cross_uniformity, uniformity

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
