"""InfoNCE of mixed embeddings, whose targets are the parts of the mixture."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def mixup_info_nce(
  mixed: jax.Array,
  other: jax.Array,
  partner: jax.Array,
  share: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """InfoNCE between mixtures of two examples and the other modality, the loss of MixCo [1, 2].

      L = ½ meanᵢ( logsumexpⱼ sᵢⱼ − Σⱼ Pᵢⱼ sᵢⱼ ) + ½ meanⱼ( cⱼ logsumexpᵢ sᵢⱼ − Σᵢ Pᵢⱼ sᵢⱼ )
      s = scale · mixed otherᵀ,   Pᵢⱼ = βᵢ [j = i] + (1 − βᵢ) [j = πᵢ],   cⱼ = Σᵢ Pᵢⱼ

  Row i is a mixture of the examples i and πᵢ, with the shares βᵢ and 1 − βᵢ, which are its targets.
  They add up: an example mixed with itself, πᵢ = i, keeps its target of 1. The code of [2]
  overwrites, so that a target of 1 − βᵢ is left.

  Args:
    mixed: [B, D] unit vectors, the mixtures of one modality.
    other: [B, D] unit vectors of the other modality.
    partner: [B] integers, π, from 0 to B − 1; usually a permutation.
    share: [B] numbers from 0 to 1, β.
    scale: scalar, the inverse temperature.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes do not match, or as `pairwise.logsumexp`.

  References:
    [1] Kim et al., MixCo: Mix-up Contrastive Learning for Visual Representation, 2020,
      https://arxiv.org/abs/2010.06300.
    [2] Kumar et al., Harnessing Shared Relations via Multimodal Mixup Contrastive Learning for
      Multimodal Classification, 2024, https://arxiv.org/abs/2409.17777.

  See also `info_nce`, which it equals where all shares are 1.

  >>> eye, swapped = jnp.eye(2), jnp.array([1, 0])
  >>> mixed = jnp.full((2, 2), 0.5**0.5)
  >>> round(float(mixup_info_nce(mixed, eye, swapped, jnp.full(2, 0.5), scale=1.0)), 4)  # log 2
  0.6931
  """
  options: dict[str, Any] = {'scale': scale, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(mixup_info_nce_per_example(mixed, other, partner, share, **options))


def mixup_info_nce_per_example(
  mixed: jax.Array,
  other: jax.Array,
  partner: jax.Array,
  share: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], of which `mixup_info_nce` is the mean.

      Lᵢ = ½ ( logsumexpⱼ sᵢⱼ − Σⱼ Pᵢⱼ sᵢⱼ ) + ½ ( cᵢ logsumexpⱼ sⱼᵢ − Σⱼ Pⱼᵢ sⱼᵢ )

  It takes the same arguments.

  >>> eye = jnp.eye(2)
  >>> losses = mixup_info_nce_per_example(eye, eye, jnp.array([1, 0]), jnp.ones(2), scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  check_pairs(mixed=mixed, other=other)
  if {partner.shape, share.shape} != {mixed.shape[:1]}:
    raise ValueError(
      f'partner {partner.shape} and share {share.shape} do not match mixed {mixed.shape}; give [B] '
      'and [B] with [B, D]'
    )
  rows, columns = pairwise.logsumexp(mixed, other, scale=scale, block_size=block_size, mesh=mesh)
  share = share.astype(rows.dtype)
  # Gradients of rows that are partners several times add up in float32.
  partners = other.astype(rows.dtype)[partner]
  own = share * scale * pairwise.paired(mixed, other)
  crossed = (1 - share) * scale * pairwise.paired(mixed, partners)
  # Columns have targets in their own row and in the rows whose partner they are.
  of_columns = share.at[partner].add(1 - share) * columns - own.at[partner].add(crossed)
  return (rows - own - crossed + of_columns) / 2
