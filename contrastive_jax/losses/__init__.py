"""Contrastive and captioning losses: pure functions of arrays.

`NAME` returns a scalar; `NAME_per_example` returns [B], of which `NAME` is the mean.
"""

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.labels.contrastive_margin import (
  contrastive_margin,
  contrastive_margin_per_example,
)
from contrastive_jax.losses.labels.distancia import icnn, proto_triplet
from contrastive_jax.losses.labels.multi_similarity import (
  multi_similarity,
  multi_similarity_per_example,
)
from contrastive_jax.losses.labels.proxy_anchor import proxy_anchor
from contrastive_jax.losses.labels.proxy_replay import hpcr, pcr, pcr_per_example
from contrastive_jax.losses.labels.rank_mixup import m_ndcg, mrl
from contrastive_jax.losses.labels.supervised import supervised, supervised_per_example
from contrastive_jax.losses.labels.supremix import supremix, supremix_per_example
from contrastive_jax.losses.labels.tracks import tracks
from contrastive_jax.losses.pairs.alignment import alignment, alignment_per_example
from contrastive_jax.losses.pairs.assignment import (
  swapped_assignment,
  swapped_assignment_per_example,
)
from contrastive_jax.losses.pairs.composition import (
  composition_aware,
  composition_aware_per_example,
  modular,
  modular_per_example,
)
from contrastive_jax.losses.pairs.debiased import (
  debiased_info_nce,
  debiased_info_nce_per_example,
)
from contrastive_jax.losses.pairs.distillation import (
  distillation,
  distillation_per_example,
  interactive_distillation,
  interactive_distillation_per_example,
  teacher_entropy,
)
from contrastive_jax.losses.pairs.dynamic_distillation import (
  dynamic_distillation,
  dynamic_distillation_per_example,
)
from contrastive_jax.losses.pairs.gram import gram, gram_per_example, volume
from contrastive_jax.losses.pairs.hard_negative import hard_negative, hard_negative_per_example
from contrastive_jax.losses.pairs.info_nce import info_nce, info_nce_per_example
from contrastive_jax.losses.pairs.mixup import mixup_info_nce, mixup_info_nce_per_example
from contrastive_jax.losses.pairs.reweighting import (
  reweighted_info_nce,
  reweighted_info_nce_per_example,
)
from contrastive_jax.losses.pairs.sigmoid import sigmoid, sigmoid_per_example
from contrastive_jax.losses.pairs.soft_targets import (
  soft_target_info_nce,
  soft_target_info_nce_per_example,
)
from contrastive_jax.losses.pairs.uniformity import cross_uniformity, uniformity
from contrastive_jax.losses.tokens.captioning import captioning, captioning_streamed, count_tokens
from contrastive_jax.losses.tokens.patches import patch_errors, patch_ranking
from contrastive_jax.losses.tokens.restoration import restoration
from contrastive_jax.losses.views.barlow_twins import barlow_twins
from contrastive_jax.losses.views.cacr import cacr, cacr_per_example
from contrastive_jax.losses.views.cosine import cosine, cosine_per_example
from contrastive_jax.losses.views.decoupled import decoupled, decoupled_per_example
from contrastive_jax.losses.views.groco import groco, groco_per_example
from contrastive_jax.losses.views.hard_contrastive import (
  hard_contrastive,
  hard_contrastive_per_example,
)
from contrastive_jax.losses.views.mim import (
  mim_contrast,
  mim_contrast_per_example,
  mim_densities,
  mim_densities_per_example,
)
from contrastive_jax.losses.views.multi_view import (
  mv_dhel,
  mv_dhel_per_example,
  mv_info_nce,
  mv_info_nce_per_example,
)
from contrastive_jax.losses.views.multi_view_baselines import (
  averaged_nt_xent,
  pairwise_nt_xent,
  poly_view,
)
from contrastive_jax.losses.views.nt_xent import nt_xent, nt_xent_per_example
from contrastive_jax.losses.views.pixels import (
  pix_contrast,
  pix_contrast_per_example,
  pixpro,
  pixpro_per_example,
)
from contrastive_jax.losses.views.swav import swav, swav_per_example
from contrastive_jax.losses.views.vicreg import vicreg

__all__ = [  # noqa: RUF022 — grouped by kind
  # Pairs of images and texts.
  'alignment',
  'alignment_per_example',
  'composition_aware',
  'composition_aware_per_example',
  'cross_uniformity',
  'debiased_info_nce',
  'debiased_info_nce_per_example',
  'distillation',
  'distillation_per_example',
  'dynamic_distillation',
  'dynamic_distillation_per_example',
  'hard_negative',
  'hard_negative_per_example',
  'info_nce',
  'info_nce_per_example',
  'mixup_info_nce',
  'mixup_info_nce_per_example',
  'modular',
  'modular_per_example',
  'interactive_distillation',
  'interactive_distillation_per_example',
  'reweighted_info_nce',
  'reweighted_info_nce_per_example',
  'sigmoid',
  'sigmoid_per_example',
  'soft_target_info_nce',
  'soft_target_info_nce_per_example',
  'swapped_assignment',
  'swapped_assignment_per_example',
  'teacher_entropy',
  'uniformity',
  # Several modalities.
  'gram',
  'gram_per_example',
  'volume',
  # Views of the same example.
  'averaged_nt_xent',
  'barlow_twins',
  'cacr',
  'cacr_per_example',
  'cosine',
  'cosine_per_example',
  'decoupled',
  'decoupled_per_example',
  'groco',
  'groco_per_example',
  'hard_contrastive',
  'hard_contrastive_per_example',
  'mim_contrast',
  'mim_contrast_per_example',
  'mim_densities',
  'mim_densities_per_example',
  'mv_dhel',
  'mv_dhel_per_example',
  'mv_info_nce',
  'mv_info_nce_per_example',
  'nt_xent',
  'nt_xent_per_example',
  'swav',
  'swav_per_example',
  'vicreg',
  'pairwise_nt_xent',
  'pix_contrast',
  'pix_contrast_per_example',
  'pixpro',
  'pixpro_per_example',
  'poly_view',
  # Labels.
  'tracks',
  'icnn',
  'proto_triplet',
  'hpcr',
  'pcr',
  'pcr_per_example',
  'm_ndcg',
  'mrl',
  'contrastive_margin',
  'contrastive_margin_per_example',
  'multi_similarity',
  'multi_similarity_per_example',
  'proxy_anchor',
  'supervised',
  'supervised_per_example',
  'supremix',
  'supremix_per_example',
  # Tokens.
  'restoration',
  'captioning',
  'captioning_streamed',
  'count_tokens',
  'patch_errors',
  'patch_ranking',
  # Streamed reductions over all pairs, of which the losses are made.
  'pairwise',
]
