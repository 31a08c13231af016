"""How evenly embeddings spread over the sphere."""

import math

import jax

from contrastive_jax.losses import pairwise


def uniformity(
  image: jax.Array,
  text: jax.Array,
  *,
  sharpness: float = 2.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The uniformity of each modality [1], averaged over the two as in [2].

      L = ½ U(image, image) + ½ U(text, text),   U(x, y) = log mean_{i ≠ j} exp( −t ‖ xᵢ − yⱼ ‖² )

  Args:
    image: [B, D] unit vectors.
    text: [B, D] unit vectors.
    sharpness: t.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the batch is sharded, by its axes named 'data' and 'fsdp' (others hold
      copies); None for one device.

  Returns:
    Scalar, from −4t to 0; 0 when all embeddings coincide.

  Raises:
    ValueError: if the shapes do not match, or B is 1: one embedding has no others.

  References:
    [1] Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
      Uniformity on the Hypersphere, 2020.
    [2] Fahim et al., It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap,
      2024. Its code was not at hand: the average, rather than the sum, is our reading.

  >>> round(float(uniformity(jax.numpy.eye(4), jax.numpy.eye(4))), 4)
  -4.0
  """
  options = {'sharpness': sharpness, 'block_size': block_size, 'mesh': mesh}
  return (_uniformity(image, image, **options) + _uniformity(text, text, **options)) / 2


def cross_uniformity(
  image: jax.Array,
  text: jax.Array,
  *,
  sharpness: float = 2.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The uniformity of images among the texts of others [1]: U(image, text) of `uniformity`.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    sharpness: t.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the batch is sharded, by its axes named 'data' and 'fsdp' (others hold
      copies); None for one device.

  Returns:
    Scalar, from −4t to 0.

  Raises:
    ValueError: if the shapes differ, or B is 1: one embedding has no others.

  References:
    [1] Fahim et al., It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap,
      2024. Its code was not at hand: that i = j is left out is our reading.

  >>> round(float(cross_uniformity(jax.numpy.eye(4), jax.numpy.eye(4))), 4)
  -4.0
  """
  if image.shape != text.shape:
    raise ValueError(f'image {image.shape} and text {text.shape} differ; give two [B, D]')
  return _uniformity(image, text, sharpness=sharpness, block_size=block_size, mesh=mesh)


def _uniformity(x, y, *, sharpness, **options):
  if len(x) < 2:
    raise ValueError(f'a batch of {len(x)} has no other embeddings; give 2 or more')
  # ‖x − y‖² = 2 − 2 x · y of unit vectors.
  rows, _ = pairwise.logsumexp(x, y, scale=2.0 * sharpness, diagonal=False, **options)
  return jax.nn.logsumexp(rows) - math.log(len(x) * (len(x) - 1)) - 2.0 * sharpness
