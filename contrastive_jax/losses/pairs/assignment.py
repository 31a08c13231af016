"""The assignment of images to texts, and of texts to images, that other views of them predict."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def swapped_assignment(
  image: jax.Array,
  text: jax.Array,
  image_target: jax.Array,
  text_target: jax.Array,
  *,
  scale: jax.Array | float,
  epsilon: float = 0.05,
  iterations: int = 3,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The cross entropy between scores and the balanced assignments of other views [1].

      L = ½ meanᵢ( logsumexpⱼ sᵢⱼ − Σⱼ Qᵢⱼ sᵢⱼ ) + ½ meanⱼ( logsumexpᵢ sᵢⱼ − Σᵢ Pᵢⱼ sᵢⱼ )
      s = scale · image textᵀ,   Q, P = Sinkhorn(image_target text_targetᵀ / ε)

  Q assigns each image to the texts, and P each text to the images, see `pairwise.sinkhorn`: SwAV
  [2] with the other modality's batch in place of prototypes. The B × B arrays do not exist: the
  sum over j is sᵢ times the expectation of the texts under Qᵢ.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    image_target: [B, E] unit vectors of other views of the images.
    text_target: [B, E] unit vectors of other views of the texts.
    scale: scalar, the inverse temperature of the scores.
    epsilon: ε over 0, the temperature of the assignments.
    iterations: of Sinkhorn, see `pairwise.sinkhorn`.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats. The assignments have no gradient.

  Raises:
    ValueError: if the shapes differ, ε is not above 0, or as `pairwise.sinkhorn`.

  References:
    [1] Fini et al., Improved baselines for vision-language pre-training, 2023,
      https://arxiv.org/abs/2305.08675; its SwALIP.
    [2] Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
      2020, https://arxiv.org/abs/2006.09882.

  >>> eye = jnp.eye(4)
  >>> round(float(swapped_assignment(eye, eye, eye, eye, scale=1.0)), 4)      # as InfoNCE
  0.7437
  """
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh}
  options |= {'scale': scale, 'epsilon': epsilon, 'iterations': iterations}
  return jnp.mean(swapped_assignment_per_example(image, text, image_target, text_target, **options))


def swapped_assignment_per_example(
  image: jax.Array,
  text: jax.Array,
  image_target: jax.Array,
  text_target: jax.Array,
  *,
  scale: jax.Array | float,
  epsilon: float = 0.05,
  iterations: int = 3,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each pair [B], of which `swapped_assignment` is the mean, with its arguments.

  >>> eye = jnp.eye(2)
  >>> losses = swapped_assignment_per_example(eye, eye, eye, eye, scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  check_pairs(image=image, text=text)
  check_pairs(image_target=image_target, text_target=text_target)
  if len(image) != len(image_target):
    raise ValueError(
      f'image {image.shape} and image_target {image_target.shape} differ in B; give one row each '
      'per example'
    )
  if not epsilon > 0:
    raise ValueError(f'epsilon = {epsilon}; use a number over 0')
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh}
  targets = jax.lax.stop_gradient((image_target, text_target))
  own: dict[str, Any] = {'scale': 1 / epsilon, **options}
  rows, columns = pairwise.sinkhorn(*targets, iterations=iterations, **own)
  assigned = pairwise.expectation(
    *targets, (image, text), pairwise.biased, rows=rows, columns=columns, **own
  )
  (texts, _), (images, _) = assigned
  of_rows, of_columns = pairwise.logsumexp(image, text, scale=scale, **options)
  attraction = pairwise.paired(image, texts) + pairwise.paired(text, images)
  return (of_rows + of_columns - scale * attraction) / 2
