"""Contrast and consistency between the pixels of two crops: PixContrast and PixPro."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses.views.features import wide


def positive_pixels(
  first: jax.Array, second: jax.Array, side: int, pos_ratio: float = 0.7
) -> jax.Array:
  """Which pixels of two crops show the same place [1].

  A pixel is a bin of a `side` x `side` grid over its crop. Two pixels are positives if the distance
  of their centers in the image, divided by the longer of the two bins' diagonals, is below
  `pos_ratio`.

  Args:
    first: [B, 4] boxes (x₀, y₀, x₁, y₁) of the crops in the images; x₁ < x₀ if the crop is flipped.
    second: [B, 4] those of other crops of the same images, in the same units.
    side: of the grid.
    pos_ratio: the largest distance, in diagonals.

  Returns:
    [B, P, P] booleans, P = side² pixels in reading order: pixel i of the first crop and j of the
    second.

  References:
    [1] Xie et al., Propagate Yourself, 2021, https://arxiv.org/abs/2011.10043.

  >>> box = jnp.array([[0.0, 0.0, 1.0, 1.0]])
  >>> int(positive_pixels(box, box, 7).sum()), int(positive_pixels(box, box, 7, 0.71).sum())
  (49, 217)
  """
  if first.shape != second.shape or first.ndim != 2 or first.shape[1] != 4:
    raise ValueError(f'first {first.shape} and second {second.shape}; give boxes [B, 4]')
  (centers, bins), (others, other_bins) = (_grid(boxes, side) for boxes in (first, second))
  distance = jnp.linalg.norm(centers[:, :, None] - others[:, None], axis=-1)
  diagonals = (jnp.linalg.norm(each, axis=-1) for each in (bins, other_bins))
  return distance / jnp.maximum(*diagonals)[:, None, None] < pos_ratio


def _grid(boxes: jax.Array, side: int) -> tuple[jax.Array, jax.Array]:
  """The centers [B, P, 2] of the bins of crops, and the sides [B, 2] of a bin."""
  start, end = boxes[:, None, :2], boxes[:, None, 2:]
  bins = (end - start) / side
  centers = start + bins * (jnp.arange(side)[:, None] + 0.5)
  x, y = centers[:, None, :, 0], centers[:, :, None, 1]
  pairs = jnp.stack(jnp.broadcast_arrays(x, y), -1)
  return pairs.reshape(len(boxes), side * side, 2), bins[:, 0]


def propagate(features: jax.Array, values: jax.Array, p: float = 2.0) -> jax.Array:
  """The pixel propagation module [1]: each pixel takes the values of those that resemble it.

      yᵢ = Σⱼ max(cos(xᵢ, xⱼ), 0)ᵖ gⱼ / ‖gⱼ‖

  Args:
    features: [B, P, D] x, of the pixels of an image.
    values: [B, P, E] g, of the same pixels.
    p: sharpness of the similarity; with 0, every pixel gets the sum of all.

  Returns:
    [B, P, E] y.

  References:
    [1] Xie et al., Propagate Yourself, 2021, https://arxiv.org/abs/2011.10043.

  >>> propagate(jnp.eye(2)[None], 3 * jnp.eye(2)[None])
  Array([[[1., 0.],
          [0., 1.]]], dtype=float32)
  """
  x = _unit(features)
  similarity = jnp.maximum(jnp.einsum('bid,bjd->bij', x, x), 0.0)
  if p < 1:
    similarity = similarity + 1e-6  # the slope at 0 is infinite
  return jnp.einsum('bij,bje->bie', similarity**p, _unit(values))


def pixpro(prediction: jax.Array, target: jax.Array, positive: jax.Array) -> jax.Array:
  """Consistency of the propagated pixels of one crop with those of another, PixPro [1].

      L = −2 meanₙ [ Σᵢⱼ mᵢⱼ cos(yᵢ, sg kⱼ) / (Σᵢⱼ mᵢⱼ + 10⁻⁶) ]

  for one direction; the paper adds both. No gradient flows into k.

  Args:
    prediction: [B, P, D] y, the pixels of a crop after `propagate`, of any length.
    target: [B, P', D] k, those of another crop by a momentum encoder, of any length.
    positive: [B, P, P'] booleans m, see `positive_pixels`.

  Returns:
    Scalar from −2 to 2. An image whose crops do not overlap counts as 0.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Xie et al., Propagate Yourself, 2021, https://arxiv.org/abs/2011.10043.

  >>> pixels = jnp.eye(4)[None]
  >>> round(float(pixpro(pixels, pixels, jnp.eye(4, dtype=bool)[None])), 4)
  -2.0
  """
  return jnp.mean(pixpro_per_example(prediction, target, positive))


def pixpro_per_example(prediction: jax.Array, target: jax.Array, positive: jax.Array) -> jax.Array:
  """The consistency of each image [B], of which `pixpro` is the mean.

  >>> pixels = jnp.eye(4)[None]
  >>> round(float(pixpro_per_example(pixels, -pixels, jnp.eye(4, dtype=bool)[None])[0]), 4)
  2.0
  """
  cosines = _cosines(prediction, target, positive)
  weights = positive.astype(cosines.dtype)
  return -2 * jnp.sum(weights * cosines, (1, 2)) / (jnp.sum(weights, (1, 2)) + 1e-6)


def pix_contrast(
  prediction: jax.Array, target: jax.Array, positive: jax.Array, *, scale: float | jax.Array
) -> jax.Array:
  """InfoNCE between the pixels of two crops of an image, PixContrast [1].

      Lᵢ = −log ( Σⱼ mᵢⱼ e^{scale cos(xᵢ, sg kⱼ)} / Σⱼ e^{scale cos(xᵢ, sg kⱼ)} )

  averaged over the pixels i that have a positive, then over the images. This is one direction; the
  paper averages both. The negatives of a pixel are all other pixels of the other crop of its image.

  Args:
    prediction: [B, P, D] x, the pixels of a crop, of any length.
    target: [B, P', D] k, those of another crop by a momentum encoder, of any length.
    positive: [B, P, P'] booleans m, see `positive_pixels`.
    scale: inverse temperature, 1 / 0.3 in [1].

  Returns:
    Scalar. An image whose crops do not overlap counts as 0.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Xie et al., Propagate Yourself, 2021, https://arxiv.org/abs/2011.10043.

  >>> pixels = jnp.ones((1, 4, 2))
  >>> float(jnp.exp(pix_contrast(pixels, pixels, jnp.eye(4, dtype=bool)[None], scale=5.0)))
  4.0
  """
  return jnp.mean(pix_contrast_per_example(prediction, target, positive, scale=scale))


def pix_contrast_per_example(
  prediction: jax.Array, target: jax.Array, positive: jax.Array, *, scale: float | jax.Array
) -> jax.Array:
  """The mean of each image's pixels [B], of which `pix_contrast` is the mean.

  >>> pixels = jnp.eye(2)[None]
  >>> round(float(pix_contrast_per_example(pixels, pixels, pixels > 0, scale=5.0)[0]), 4)
  0.0067
  """
  logits = scale * _cosines(prediction, target, positive)
  matched = jnp.any(positive, -1)
  # The bound is finite: a pixel without positives has a value too, which does not count.
  of_positives = jnp.where(positive, logits, jnp.finfo(logits.dtype).min / 2)
  losses = jax.nn.logsumexp(logits, -1) - jax.nn.logsumexp(of_positives, -1)
  count = jnp.maximum(jnp.sum(matched, -1), 1)
  return jnp.sum(jnp.where(matched, losses, 0.0), -1) / count


def _cosines(prediction: jax.Array, target: jax.Array, positive: jax.Array) -> jax.Array:
  """The cosines [B, P, P'] of all pixels of two crops; checks the shapes."""
  shapes = prediction.shape, target.shape, positive.shape
  if prediction.ndim != 3 or target.ndim != 3 or 0 in prediction.shape + target.shape:
    works = False
  else:
    (B, P, D), (_, others, _) = prediction.shape, target.shape
    works = target.shape == (B, others, D) and positive.shape == (B, P, others)
  if not works:
    raise ValueError(
      "prediction {}, target {} and positive {}; give [B, P, D], [B, P', D] and [B, P, P'], not "
      'empty'.format(*shapes)
    )
  return jnp.einsum('bid,bjd->bij', _unit(prediction), _unit(jax.lax.stop_gradient(target)))


def _unit(x: jax.Array) -> jax.Array:
  """Scales vectors to length 1, in float32 or wider; a zero vector has a finite gradient."""
  x = wide(x)
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))
