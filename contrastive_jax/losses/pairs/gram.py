"""GRAM: contrasts several modalities by the volume that their vectors span."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs

Array = jax.Array

# About the rounding error of a float32 determinant; it bounds the gradient of the root.
_EPSILON = 1e-7
# Least probability of a negative, before normalization.
_LEAST = 1e-4


class _Anchors(NamedTuple):
  """Side data of the anchors."""

  square: Array  # [B] squared norms
  scale: Array  # [B] the inverse temperature


class _Spans(NamedTuple):
  """Side data of the others: what volumes need of the Gram matrix of each example."""

  determinant: Array  # [B]
  adjugate: Array  # [B, k − 1, k − 1]


def volume(anchor: Array, *others: Array) -> Array:
  """Volumes of the parallelepipeds that the vectors of each example span [1].

      V = √( max(det G, 0) + ε ),   ε = 10⁻⁷

  where G is the Gram matrix of the k vectors. With unit vectors V is 1 where they are orthogonal,
  and √ε where one depends on the others. With k = 2 it is |sin| of the angle: vectors of opposite
  directions have no volume. It is symmetric in the modalities.

  Args:
    anchor: [B, D] vectors.
    *others: one to three further modalities, [B, D] each.

  Returns:
    [B], float32, with finite gradients.

  Raises:
    ValueError: if the shapes differ, or there are fewer than 2 or more than 4 modalities.

  References:
    [1] Cicchetti et al., Gramian Multimodal Representation Learning and Alignment, 2025,
      https://arxiv.org/abs/2412.11959; formulas as in ispamm/GRAM: utils/volume.py, which has
      √|det G|.

  >>> volume(jnp.eye(3), jnp.array([[1.0, 0, 0], [1, 0, 0], [0.8, 0, 0.6]])).round(1)
  Array([0. , 1. , 0.8], dtype=float32)
  """
  anchor, *others = _wide(anchor, *others)
  products = tuple(pairwise.paired(anchor, other) for other in others)
  return _volume(pairwise.paired(anchor, anchor), _spans(others), products)


def gram(
  anchor: Array,
  *others: Array,
  scale: Array | float,
  same: Array | None = None,
  label_smoothing: float = 0.1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> Array:
  """Contrastive loss of 2 to 4 modalities by their volumes, GRAM [1].

      L = ½ meanᵢ CE_ε(−s Vᵢⱼ over j, i) + ½ meanⱼ CE_ε(−s Vᵢⱼ over i, j)

  Vᵢⱼ is the `volume` of the anchor of example i and the other modalities of example j, s the scale,
  and CE_ε the cross entropy with label smoothing as in `info_nce`. The determinants have closed
  forms, of k − 1 products per pair and of the Gram matrix of the others per example.

  Two modalities lose the sign of the cosine. Where two of the others coincide, all anchors have
  volume 0 and are not told apart.

  Args:
    anchor: [B, D] unit vectors, row i of the same example as row i of the others.
    *others: one to three further modalities, [B, D] unit vectors each.
    scale: scalar, the inverse temperature; the authors start at 1 / 0.07 and learn it.
    same: [B] integers; rows with the same integer are not negatives of each other. Default: all
      differ.
    label_smoothing: ε, at least 0 and below 1. A value over 0 takes a second pass over the pairs.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats; 0 for B = 1.

  Raises:
    ValueError: if the shapes differ, there are fewer than 2 or more than 4 modalities, the scale is
      no scalar, `label_smoothing` is out of range, or as `pairwise.logsumexp`.

  References:
    [1] Cicchetti et al., Gramian Multimodal Representation Learning and Alignment, 2025,
      https://arxiv.org/abs/2412.11959.

  >>> eye = jnp.eye(4)
  >>> round(float(gram(eye, eye, eye[::-1], scale=1.0, label_smoothing=0.0)), 3)      # log(2 + 2/e)
  1.006
  """
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh, 'same': same}
  options |= {'scale': scale, 'label_smoothing': label_smoothing}
  return jnp.mean(gram_per_example(anchor, *others, **options))


def gram_per_example(
  anchor: Array,
  *others: Array,
  scale: Array | float,
  same: Array | None = None,
  label_smoothing: float = 0.1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> Array:
  """The loss of each example [B], of which `gram` is the mean; it takes the same arguments.

  >>> eye = jnp.eye(2)
  >>> losses = gram_per_example(eye, eye, scale=1.0, label_smoothing=0.0)
  >>> [round(float(loss), 3) for loss in losses]      # log(1 + 1/e)
  [0.313, 0.313]
  """
  if not 0 <= label_smoothing < 1:
    raise ValueError(f'label_smoothing = {label_smoothing}; use a number in [0, 1)')
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh, 'exclude': same}
  options |= {'dtype': jnp.result_type(anchor, *others)}
  anchor, *others = _wide(anchor, *others)
  options |= {'rows': _anchors(anchor, scale), 'columns': _spans(others)}
  pairs = (anchor,) * len(others), tuple(others)
  rows, columns = pairwise.logsumexp(*pairs, _logits, **options)
  paired = -scale * volume(anchor, *others)
  losses = (rows + columns) / 2 - paired
  if not label_smoothing:
    return losses
  sums = pairwise.sum(*pairs, _logits_and_ones, **options)
  means = [total / count for total, count in sums]
  return losses - label_smoothing * ((means[0] + means[1]) / 2 - paired)


def gram_negatives(
  key: Array,
  anchor: Array,
  *others: Array,
  scale: Array | float,
  same: Array | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[Array, Array]:
  """Draws hard negatives of both directions, for the matching loss of GRAM [1].

      p(j | i) ∝ softmaxⱼ(−s Vᵢⱼ) + 10⁻⁴,   j ≠ i

  and the same over i for each j.

  Args:
    key: of the draw.
    anchor: as in `gram`.
    *others: as in `gram`.
    scale: as in `gram`.
    same: as in `gram`.
    mesh: as in `gram`.

  Returns:
    The example whose other modalities are the negative of each anchor, and the one whose anchor is
    that of the other modalities: int32 [B]; −1 where there is none. They have no gradient.

  Raises:
    ValueError: as `gram`.

  References:
    [1] Cicchetti et al., Gramian Multimodal Representation Learning and Alignment, 2025,
      https://arxiv.org/abs/2412.11959; as in ispamm/GRAM: model/gram.py, forward_ret.
  """
  anchor, others, scale = jax.lax.stop_gradient((anchor, others, scale))
  wide, *others_wide = _wide(anchor, *others)
  vectors, anchors, spans = (anchor,) * len(others), _anchors(wide, scale), _spans(others_wide)
  options: dict[str, Any] = {'exclude': same, 'mesh': mesh}
  totals = pairwise.logsumexp(vectors, others, _logits, rows=anchors, columns=spans, **options)
  options['diagonal'] = False
  keys = jax.random.split(key)
  of_anchors = pairwise.sample(
    keys[0], vectors, others, _weigh_others, rows=(anchors, totals[0]), columns=spans, **options
  )
  of_others = pairwise.sample(
    keys[1], others, vectors, _weigh_anchors, rows=(spans, totals[1]), columns=anchors, **options
  )
  return of_anchors, of_others


def _wide(anchor, *others):
  """The vectors in float32, in which their gradients are summed; raises ValueError for shapes."""
  if not 1 <= len(others) <= 3:
    raise ValueError(f'{1 + len(others)} modalities; give an anchor and one to three others')
  check_pairs(anchor=anchor, **{f'others[{m}]': other for m, other in enumerate(others)})
  return [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (anchor, *others)]


def _anchors(anchor, scale):
  if jnp.shape(scale):
    raise ValueError(f'scale has shape {jnp.shape(scale)}; give a scalar')
  square = pairwise.paired(anchor, anchor)
  return _Anchors(square, jnp.broadcast_to(jnp.asarray(scale, square.dtype), square.shape))


def _spans(others):
  """The determinant and the adjugate of each example's Gram matrix, from their closed forms."""
  rows = [jnp.stack([pairwise.paired(x, y) for y in others], -1) for x in others]
  matrix = jnp.stack(rows, -2)
  if len(others) == 1:
    adjugate = jnp.ones_like(matrix)
  elif len(others) == 2:
    adjugate = matrix[:, ::-1, ::-1] * jnp.array([[1, -1], [-1, 1]], matrix.dtype)
  else:
    # Cofactors are cross products of the other two rows, and symmetric like the matrix.
    adjugate = jnp.cross(matrix[:, [1, 2, 0]], matrix[:, [2, 0, 1]])
  return _Spans(jnp.sum(matrix[:, 0] * adjugate[:, 0], -1), adjugate)


def _volume(square, spans, products):
  """Volumes of anchors of the given squared norms with the others, by their products.

  With the Gram matrix C of the others, and the products b of the anchor with them,

      det G = |a|² det C − bᵀ adj(C) b
  """
  determinant = square * spans.determinant
  for m, left in enumerate(products):
    for n, right in enumerate(products):
      determinant -= spans.adjugate[..., m, n] * left * right
  return jnp.sqrt(jnp.maximum(determinant, 0.0) + _EPSILON)


def _logits(products, anchors, spans):
  """Logits [b, n] of anchors, the rows, and others, the columns."""
  square, scale = jax.tree.map(lambda a: a[:, None], anchors)
  return -scale * _volume(square, spans, products)


def _logits_and_ones(products, anchors, spans):
  """The term whose sums are those of the logits, and the numbers of pairs that count."""
  logits = _logits(products, anchors, spans)
  return logits, jnp.ones_like(logits)


def _weigh_others(products, rows, spans):
  """Log-probabilities [b, n] of the columns, up to a constant."""
  anchors, total = rows
  return jnp.log(jnp.exp(_logits(products, anchors, spans) - total[:, None]) + _LEAST)


def _weigh_anchors(products, rows, anchors):
  """The same where the others are the rows, and the anchors the columns."""
  spans, total = jax.tree.map(lambda a: a[:, None], rows)
  logits = -anchors.scale * _volume(anchors.square, spans, products)
  return jnp.log(jnp.exp(logits - total) + _LEAST)
