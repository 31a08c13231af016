"""How uniformly embeddings are distributed on the sphere."""

import math
from typing import Any

import jax

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def uniformity(
  image: jax.Array,
  text: jax.Array,
  *,
  sharpness: float = 2.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The uniformity of each modality [1], averaged over the two [2].

      L = ½ U(image, image) + ½ U(text, text),   U(x, y) = log mean_{i ≠ j} exp( −t ‖ xᵢ − yⱼ ‖² )

  Args:
    image: [B, D] unit vectors.
    text: [B, D] unit vectors.
    sharpness: the factor t.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, from −4t to 0; 0 when all embeddings coincide.

  Raises:
    ValueError: if the shapes differ, or B is 1.

  References:
    [1] Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
      Uniformity on the Hypersphere, 2020, https://arxiv.org/abs/2005.10242.
    [2] Fahim et al., It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap,
      2024, https://arxiv.org/abs/2405.18570.

  See also `alignment` and `cross_uniformity`.

  >>> round(float(uniformity(jax.numpy.eye(4), jax.numpy.eye(4))), 4)
  -4.0
  """
  check_pairs(image=image, text=text)
  options: dict[str, Any] = {'sharpness': sharpness, 'block_size': block_size, 'mesh': mesh}
  return (_uniformity(image, image, **options) + _uniformity(text, text, **options)) / 2


def cross_uniformity(
  image: jax.Array,
  text: jax.Array,
  *,
  sharpness: float = 2.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The uniformity of images and the texts of other pairs [1]: U(image, text) of `uniformity`.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    sharpness: the factor t.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, from −4t to 0.

  Raises:
    ValueError: if the shapes differ, or B is 1.

  References:
    [1] Fahim et al., It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap,
      2024, https://arxiv.org/abs/2405.18570.

  >>> round(float(cross_uniformity(jax.numpy.eye(4), jax.numpy.eye(4))), 4)
  -4.0
  """
  check_pairs(image=image, text=text)
  return _uniformity(image, text, sharpness=sharpness, block_size=block_size, mesh=mesh)


def _uniformity(x, y, *, sharpness, **options):
  if len(x) < 2:
    raise ValueError(f'a batch of {len(x)} has no pairs i ≠ j; give 2 or more')
  # ‖x − y‖² = 2 − 2 x · y for unit vectors.
  rows, _ = pairwise.logsumexp(x, y, scale=2.0 * sharpness, diagonal=False, **options)
  return jax.nn.logsumexp(rows) - math.log(len(x) * (len(x) - 1)) - 2.0 * sharpness
