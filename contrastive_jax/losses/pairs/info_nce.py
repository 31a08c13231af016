"""InfoNCE between two modalities, the loss of CLIP."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def info_nce(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  same: jax.Array | None = None,
  label_smoothing: float = 0.0,
  groups: int = 1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
  kernel: str = 'scan',
) -> jax.Array:
  """Symmetric InfoNCE, the CLIP loss [1].

      L = ½ meanᵢ( logsumexpⱼ sᵢⱼ − sᵢᵢ ) + ½ meanⱼ( logsumexpᵢ sᵢⱼ − sⱼⱼ )
      s = scale · image textᵀ

  With label smoothing ε, the targets of the cross entropies are 1 − ε at the pair and ε spread
  evenly over all pairs that count, the pair itself included [2]:

      L − ε meanᵢ( ½ meanⱼ sᵢⱼ + ½ meanⱼ sⱼᵢ − sᵢᵢ )

  With G groups, as in M2-Encoder [3], negatives are those of the example's group, one of G slices
  of B / G consecutive rows: L is the mean of the losses of the groups. A group does not depend on
  the mesh, where [3] groups machines.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    same: [B] integers; rows with the same integer are not negatives of each other. Default: all
      differ.
    label_smoothing: ε, at least 0 and below 1. A value over 0 takes a second pass over the pairs.
    groups: G, a divisor of B; 1 is CLIP, and B gives 0. See `pairwise.logsumexp` for its cost on a
      mesh.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.
    kernel: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, `label_smoothing` is out of range, or as
      `pairwise.logsumexp`.

  References:
    [1] Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021,
      https://arxiv.org/abs/2103.00020.
    [2] Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016,
      https://arxiv.org/abs/1512.00567.
    [3] Guo et al., M2-Encoder: Advancing Bilingual Image-Text Understanding by Large-scale
      Efficient Pretraining, 2024, https://arxiv.org/abs/2401.15896.

  See also `sigmoid`, which has no softmax, and `hard_negative`.

  >>> eye = jnp.eye(4)
  >>> round(float(info_nce(eye, eye, scale=1.0)), 4)      # log(e + 3) − 1
  0.7437
  """
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh, 'kernel': kernel}
  options |= {'same': same, 'label_smoothing': label_smoothing, 'groups': groups}
  return jnp.mean(info_nce_per_example(image, text, scale=scale, **options))


def info_nce_per_example(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  same: jax.Array | None = None,
  label_smoothing: float = 0.0,
  groups: int = 1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
  kernel: str = 'scan',
) -> jax.Array:
  """The loss of each pair [B], of which `info_nce` is the mean; it takes the same arguments.

      Lᵢ = ½ ( logsumexpⱼ sᵢⱼ + logsumexpⱼ sⱼᵢ ) − sᵢᵢ

  >>> eye = jnp.eye(2)
  >>> losses = info_nce_per_example(eye, eye, scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  check_pairs(image=image, text=text)
  if not 0 <= label_smoothing < 1:
    raise ValueError(f'label_smoothing = {label_smoothing}; use a number in [0, 1)')
  options: dict[str, Any] = {'groups': groups, 'block_size': block_size, 'mesh': mesh}
  rows, columns = pairwise.logsumexp(
    image, text, scale=scale, exclude=same, kernel=kernel, **options
  )
  paired = scale * pairwise.paired(image, text)
  losses = (rows + columns) / 2 - paired
  if not label_smoothing:
    return losses
  sums = pairwise.sum(image, text, _scores_and_ones, scale=scale, exclude=same, **options)
  means = [total / count for total, count in sums]
  return losses - label_smoothing * ((means[0] + means[1]) / 2 - paired)


def _scores_and_ones(scores):
  """The term whose sums are those of the scores, and the numbers of pairs that count."""
  return scores, jnp.ones_like(scores)
