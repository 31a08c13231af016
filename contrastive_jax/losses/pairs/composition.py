"""Hard negative captions of each image's own: the losses of CompA."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def composition_aware(
  image: jax.Array,
  text: jax.Array,
  negatives: jax.Array,
  *,
  scale: jax.Array | float,
  valid: jax.Array | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """InfoNCE in which each image has K wrong captions as further negatives, stage 2 of CompA [1].

      L = ½ meanᵢ( log( Σⱼ exp sᵢⱼ + Σₖ exp hᵢₖ ) − sᵢᵢ ) + ½ meanⱼ( logsumexpᵢ sᵢⱼ − sⱼⱼ )
      s = scale · image textᵀ,   hᵢₖ = scale · imageᵢ · negativesᵢₖ

  The wrong captions of an image are negatives of that image alone.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    negatives: [B, K, D] unit vectors of K wrong captions of each image; with K = 0 the loss is
      `info_nce`.
    scale: scalar, the inverse temperature.
    valid: [B, K] booleans, which of the wrong captions count. Default: all.
    same: [B] integers; rows with the same integer are not negatives of each other. Default: all
      differ.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes do not match, or as `pairwise.logsumexp`.

  References:
    [1] Ghosh et al., CompA: Addressing the Gap in Compositional Reasoning in Audio-Language Models,
      2024, https://arxiv.org/abs/2310.08753.

  The authors' code multiplies the logits that do not count by −100,000, which makes large logits of
  negative ones; here they are −∞. See also `modular`, which takes several captions of each image.

  >>> eye = jnp.eye(2)
  >>> wrong = jnp.zeros((2, 1, 2))
  >>> round(float(composition_aware(eye, eye, wrong, scale=1.0)), 4)      # log(e + 2), log(e + 1)
  0.4324
  """
  options: dict[str, Any] = {'valid': valid, 'same': same, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(composition_aware_per_example(image, text, negatives, scale=scale, **options))


def composition_aware_per_example(
  image: jax.Array,
  text: jax.Array,
  negatives: jax.Array,
  *,
  scale: jax.Array | float,
  valid: jax.Array | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each pair [B], of which `composition_aware` is the mean, with the same arguments.

  >>> eye = jnp.eye(2)
  >>> losses = composition_aware_per_example(eye, eye, jnp.zeros((2, 0, 2)), scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  check_pairs(image=image, text=text)
  options: dict[str, Any] = {'valid': valid, 'block_size': block_size, 'mesh': mesh}
  options['same'] = None if same is None else same[:, None]
  return modular_per_example(image, text[:, None], negatives, scale=scale, **options)


def modular(
  image: jax.Array,
  texts: jax.Array,
  negatives: jax.Array,
  *,
  scale: jax.Array | float,
  valid: jax.Array | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """InfoNCE with P right and K wrong captions of each image, stage 3 of CompA [1].

      L = ½ meanᵢ meanₚ( zᵢ − sᵢᵢₚ ) + ½ meanⱼₚ( logsumexpᵢ sᵢⱼₚ − sⱼⱼₚ )
      zᵢ = log( Σⱼ exp sᵢⱼ₁ + Σ_{p > 1} exp sᵢᵢₚ + Σₖ exp hᵢₖ )
      sᵢⱼₚ = scale · imageᵢ · textsⱼₚ,   hᵢₖ = scale · imageᵢ · negativesᵢₖ

  The captions of an image describe it in more or less detail. An image is compared with the first
  caption of every image, and with all its own, right and wrong; every right caption is compared
  with all images.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `texts`.
    texts: [B, P, D] unit vectors of P right captions of each image. With P = 1 the loss is
      `composition_aware`.
    negatives: [B, K, D] unit vectors of K wrong captions of each image.
    scale: scalar, the inverse temperature.
    valid: [B, K] booleans, which of the wrong captions count. Default: all.
    same: [B, P] integers, equal for equal captions. A caption that repeats an earlier one of its
      image does not count, and rows of equal captions p are not negatives of each other in the
      terms of p. Default: all differ.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes do not match, or as `pairwise.logsumexp`.

  References:
    [1] Ghosh et al., CompA: Addressing the Gap in Compositional Reasoning in Audio-Language Models,
      2024, https://arxiv.org/abs/2310.08753.

  The loss is at least ½ log P where all captions count: the right ones of an image share a softmax.

  >>> eye = jnp.eye(2)
  >>> twice = jnp.stack([eye, eye], 1)
  >>> round(float(modular(eye, twice, jnp.zeros((2, 0, 2)), scale=1.0)), 4)
  0.5876
  """
  options: dict[str, Any] = {'valid': valid, 'same': same, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(modular_per_example(image, texts, negatives, scale=scale, **options))


def modular_per_example(
  image: jax.Array,
  texts: jax.Array,
  negatives: jax.Array,
  *,
  scale: jax.Array | float,
  valid: jax.Array | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each image [B], of which `modular` is the mean; it takes the same arguments.

  >>> eye = jnp.eye(2)
  >>> losses = modular_per_example(eye, eye[:, None], jnp.zeros((2, 0, 2)), scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  _check(image=image, texts=texts, negatives=negatives, valid=valid, same=same)
  B, P, _ = texts.shape
  options: dict[str, Any] = {'scale': scale, 'block_size': block_size, 'mesh': mesh}
  totals = [
    pairwise.logsumexp(image, texts[:, p], exclude=None if same is None else same[:, p], **options)
    for p in range(P)
  ]
  counts = jnp.ones((B, P), bool) if same is None else _is_first(same)
  right, wrong = scale * _paired(image, texts), scale * _paired(image, negatives)
  if valid is not None:
    wrong = jnp.where(valid, wrong, -jnp.inf)
  # Candidates of an image are the first captions of all images, of which this is the logsumexp, and
  # of the others its own.
  others = jnp.where(counts, right, -jnp.inf)[:, 1:]
  own = jnp.concatenate([totals[0][0][:, None], others, wrong], 1)
  to_text = jnp.mean(jax.nn.logsumexp(own, 1, keepdims=True) - right, 1, where=counts)
  of_texts = jnp.stack([columns for _, columns in totals], 1) - right
  to_image = jnp.sum(of_texts, 1, where=counts) * B / jnp.sum(counts)
  return (to_text + to_image) / 2


def _paired(image: jax.Array, texts: jax.Array) -> jax.Array:
  """The products of each image [B, D] with its own texts [B, K, D], float32 [B, K]."""
  return jax.vmap(pairwise.paired, (None, 1), 1)(image, texts)


def _is_first(same: jax.Array) -> jax.Array:
  """Whether each integer [B, P] is the first of its kind in its row, booleans."""
  return ~jnp.any(jnp.tril(same[:, :, None] == same[:, None], -1), -1)


def _check(image: jax.Array, texts: jax.Array, **arrays: jax.Array | None) -> None:
  """Raises ValueError unless the shapes of the arguments of `modular` match."""
  given = {'image': image, 'texts': texts, **arrays}
  shapes = {name: jnp.shape(array) for name, array in given.items() if array is not None}
  B, P, D = shapes['texts'] if texts.ndim == 3 else (0, 0, 0)
  K = shapes['negatives'][1] if len(shapes['negatives']) == 3 else 0
  wanted = {'image': (B, D), 'texts': (B, P, D), 'negatives': (B, K, D)}
  wanted |= {'valid': (B, K), 'same': (B, P)}
  if not B * P * D or any(shape != wanted[name] for name, shape in shapes.items()):
    found = ', '.join(f'{name} {shape}' for name, shape in shapes.items())
    raise ValueError(
      f'{found}; give image [B, D], texts [B, P, D], negatives [B, K, D], valid [B, K] and same '
      '[B, P], where B, P and D are at least 1'
    )
