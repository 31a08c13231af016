"""InfoNCE with the similarities of captions as targets."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def soft_target_info_nce(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  alpha: float = 1.0,
  targets: jax.Array | None = None,
  target_scale: jax.Array | float | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Symmetric InfoNCE with soft targets, the soft CLIP loss [1], mixed with the pairs [2].

      L = ½ CE(s, p) + ½ CE(sᵀ, p),   CE(s, p) = meanᵢ( logsumexpⱼ sᵢⱼ − Σⱼ pᵢⱼ sᵢⱼ )
      pᵢⱼ = α softmaxⱼ( target_scale · ⟨targetsᵢ, targetsⱼ⟩ ) + (1 − α) [i = j]
      s = scale · image textᵀ

  Images then are positives of all texts that resemble their own, by the similarity. In [1] the
  targets are embeddings of a frozen model, which stand for `text` too, and α = 1; [2] mixes with
  α = 0.4 the similarities of images and texts by a momentum encoder.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    alpha: α, the share of the soft targets, from 0 to 1. A value over 0 takes a second pass over
      the pairs.
    targets: [B, E] unit vectors, whose similarities are the targets; differentiable. Default:
      `text`, without a gradient.
    target_scale: scalar, the inverse temperature of the targets. Default: `scale`, without a
      gradient.
    same: [B] integers; rows with the same integer have no part in each other's softmax, nor in that
      of the targets. Default: all differ.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, `alpha` is outside [0, 1], or as `pairwise.logsumexp`.

  References:
    [1] Scotti et al., Reconstructing the Mind's Eye: fMRI-to-Image with Contrastive Learning and
      Diffusion Priors, 2023, https://arxiv.org/abs/2305.18274.
    [2] Li et al., Align before Fuse: Vision and Language Representation Learning with Momentum
      Distillation, 2021, https://arxiv.org/abs/2107.07651.

  See also `info_nce`, which it equals with `alpha` of 0.

  >>> eye = jnp.eye(4)
  >>> round(float(soft_target_info_nce(eye, eye, scale=1.0)), 4)      # log(e + 3) − e / (e + 3)
  1.2683
  """
  losses = soft_target_info_nce_per_example(
    image,
    text,
    scale=scale,
    alpha=alpha,
    targets=targets,
    target_scale=target_scale,
    same=same,
    block_size=block_size,
    mesh=mesh,
  )
  return jnp.mean(losses)


def soft_target_info_nce_per_example(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  alpha: float = 1.0,
  targets: jax.Array | None = None,
  target_scale: jax.Array | float | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each pair [B], of which `soft_target_info_nce` is the mean.

  It takes the same arguments.

  >>> eye = jnp.eye(2)
  >>> losses = soft_target_info_nce_per_example(eye, eye, scale=1.0, alpha=0.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  check_pairs(image=image, text=text)
  if not 0 <= alpha <= 1:
    raise ValueError(f'alpha = {alpha}; use a number in [0, 1]')
  options: dict[str, Any] = {'exclude': same, 'block_size': block_size, 'mesh': mesh}
  rows, columns = pairwise.logsumexp(image, text, scale=scale, **options)
  paired = scale * pairwise.paired(image, text)
  losses = (rows + columns) / 2 - paired
  if not alpha:
    return losses
  if targets is None:
    targets = jax.lax.stop_gradient(text)
  if target_scale is None:
    target_scale = jax.lax.stop_gradient(scale)
  # One scale multiplies both products, so that the expected scores have that of the targets.
  (of_rows, _), (of_columns, _) = pairwise.expectation(
    (image, targets), (text, targets), _first, _second, scale=target_scale, **options
  )
  soft = scale / target_scale * (of_rows + of_columns) / 2
  return losses - alpha * (soft - paired)


def _first(scores):
  """Those of images and texts."""
  return scores[0]


def _second(scores):
  """Those of the targets."""
  return scores[1]
