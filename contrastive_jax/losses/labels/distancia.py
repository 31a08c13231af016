"""SuSana Distancia: Proto-Triplet and ICNN, two losses of distances between classes."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise

_UNDER_ROOT = 1e-6  # keeps the gradient of a distance of 0 finite
_EPSILON = 1e-7


def proto_triplet(
  queries: jax.Array, labels: jax.Array, prototypes: jax.Array, *, margin: float = 0.5
) -> jax.Array:
  """The prototype triplet loss [1]: the own prototype is nearer than every other, by a margin.

      L = meanᵢ max(0, d(qᵢ, cᵧᵢ) − min_{c ≠ cᵧᵢ} d(qᵢ, c) + margin)

  where cᵧᵢ is the prototype of the class of qᵢ, and d(x, y) = √(‖x − y‖² + 10⁻⁶).

  Args:
    queries: [B, D].
    labels: [B] rows of `prototypes`.
    prototypes: [C, D], of at least two classes, such as the means of their support.
    margin: in the unit of the embeddings.

  Returns:
    Scalar.

  Raises:
    ValueError: if the shapes do not match, or there is a single class.

  References:
    [1] Mendez-Ruiz et al., SuSana Distancia is all you need: Enforcing class separability in metric
      learning via two novel distance-based loss functions for few-shot image classification, 2023,
      https://arxiv.org/abs/2305.09062; formula as in the authors' public code.

  >>> prototypes = jnp.array([[0.0, 0.0], [3.0, 4.0]])
  >>> float(proto_triplet(prototypes, jnp.arange(2), prototypes))      # 5 apart
  0.0
  >>> round(float(proto_triplet(prototypes, jnp.array([0, 0]), prototypes)), 2)     # (0 + 5.5) / 2
  2.75
  """
  if prototypes.ndim != 2 or queries.shape[1:] != prototypes.shape[1:]:
    raise ValueError(
      f'queries {queries.shape} and prototypes {prototypes.shape} do not match; give [B, D] and '
      '[C, D]'
    )
  if labels.shape != queries.shape[:1]:
    raise ValueError(f'queries {queries.shape} and labels {labels.shape} do not match; give [B]')
  if len(prototypes) < 2:
    raise ValueError(f'{len(prototypes)} prototype; a triplet takes at least 2 classes')
  distances = distance(queries[:, None], prototypes[None])
  own = jax.nn.one_hot(labels, len(prototypes), dtype=bool)
  positive = jnp.sum(jnp.where(own, distances, 0), 1)
  negative = jnp.min(jnp.where(own, jnp.inf, distances), 1)
  return jnp.mean(jax.nn.relu(positive - negative + margin))


def icnn(
  embeddings: jax.Array,
  classes: jax.Array,
  targets: jax.Array | None = None,
  target_classes: jax.Array | None = None,
  *,
  neighbors: int = 4,
  candidates: int | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of the inter- and intra-class nearest-neighbor score [1]: −log of `icnn_score`.

  Args:
    embeddings: as in `icnn_score`, as are all others.
    classes: as above.
    targets: as above.
    target_classes: as above.
    neighbors: as above.
    candidates: as above.
    block_size: as above.
    mesh: as above.

  Returns:
    Scalar, in nats, at least 0.

  Raises:
    ValueError: as `icnn_score`.

  References:
    [1] As of `proto_triplet`.

  >>> corners = jnp.array([[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0]])
  >>> tight, wide = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 0, 1])
  >>> bool(icnn(corners, tight, neighbors=1) < icnn(corners, wide, neighbors=1))
  True
  """
  options: dict[str, Any] = {'neighbors': neighbors, 'candidates': candidates}
  options |= {'block_size': block_size, 'mesh': mesh}
  return -jnp.log(icnn_score(embeddings, classes, targets, target_classes, **options))


def icnn_score(
  embeddings: jax.Array,
  classes: jax.Array,
  targets: jax.Array | None = None,
  target_classes: jax.Array | None = None,
  *,
  neighbors: int = 4,
  candidates: int | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The inter- and intra-class nearest-neighbor score [1]: 1 for tight classes far apart.

      score = (λ + γ) / 2,   λ = (λ_same + λ_other) / 2

  of the k nearest targets of each sample i, at the distances dᵢⱼ:

      λ_same  = 1 − mean of dᵢⱼ / nᵢ over neighbors of the class of i, each row at most 1,
                where nᵢ is the distance of the nearest candidate of another class
      λ_other = mean of dᵢⱼ / max d over neighbors of other classes; 1 if no sample has one
      γ       = mean of the share of neighbors of the class of i; 1 if k leaves out a single target

  Means are over the neighbors of a sample, then over the samples that have such a neighbor. The
  nearest targets are selected by streamed reductions, so memory is linear in B. With targets of
  their own, the authors' code drops the nearest as if it were the sample; here all count.

  Args:
    embeddings: [B, D] samples.
    classes: [B] integers.
    targets: [M, D] vectors among which neighbors are; None for the samples without themselves.
    target_classes: [M] integers.
    neighbors: k; M − 2 if that is less.
    candidates: number of nearest targets among which nᵢ is; None for k + 1. Without another class
      among them, nᵢ is infinite.
    block_size: as in `pairwise.top_k`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, above 0, at most 1. Classes without partners lower γ alone.

  Raises:
    ValueError: if the shapes do not match, there are under 3 targets, or numbers are out of range.

  References:
    [1] As of `proto_triplet`.
  """
  given = targets is not None
  targets = embeddings if targets is None else targets
  classes = jnp.asarray(classes)
  target_classes = classes if target_classes is None else jnp.asarray(target_classes)
  M = len(targets)
  _check(embeddings, classes, targets, target_classes, neighbors)
  k = M - 2 if neighbors + 2 >= M else neighbors
  count = k + 1 if candidates is None else candidates
  if not k < count <= M - 1:
    raise ValueError(f'candidates = {candidates} of {M} targets; use {k + 1} to {M - 1}')
  nearest = _nearest(embeddings, targets, count, given, block_size, mesh)
  distances = distance(embeddings[:, None], jnp.asarray(targets)[nearest])  # [B, candidates]
  same = target_classes[nearest] == classes[:, None]
  # The norm of distances within a class
  other = jnp.min(jnp.where(same, jnp.inf, distances), 1, keepdims=True)
  distances, same = distances[:, :k], same[:, :k]
  relative = distances / (other + _EPSILON)
  relative /= jnp.maximum(jnp.max(relative, 1, keepdims=True), 1)
  within = 1 - _mean_of_means(relative, same)
  largest = jnp.max(jnp.where(same, 0, distances))
  between = _mean_of_means(distances / (largest + _EPSILON), ~same)
  between = jnp.where(jnp.all(same), 1.0, between)
  gamma = jnp.mean(same) if k + 2 < M else 1.0
  return ((within + between) / 2 + gamma) / 2


def distance(x: jax.Array, y: jax.Array) -> jax.Array:
  """√(‖x − y‖² + 10⁻⁶) of vectors [..., D], float32 or wider.

  >>> round(float(distance(jnp.array([3.0, 0.0]), jnp.array([0.0, 4.0]))), 3)
  5.0
  """
  dtype = jnp.promote_types(jnp.promote_types(x.dtype, y.dtype), jnp.float32)
  return jnp.sqrt(jnp.sum((x.astype(dtype) - y.astype(dtype)) ** 2, -1) + _UNDER_ROOT)


def _nearest(x, y, count, given, block_size, mesh) -> jax.Array:
  """Rows [B, count] of the nearest y of each x, nearest first; without i itself, unless given."""
  x, y = (jax.lax.stop_gradient(z.astype(jnp.promote_types(z.dtype, jnp.float32))) for z in (x, y))
  center = jnp.mean(y, 0)  # rounding is that of the spread, wherever the embeddings lie
  x, y = x - center, y - center
  # x · y − ‖y‖² / 2 descends as the distance ascends.
  x = jnp.concatenate([x, jnp.ones_like(x[:, :1])], 1)
  y = jnp.concatenate([y, -jnp.sum(y**2, 1, keepdims=True) / 2], 1)
  options = {'diagonal': given, 'block_size': block_size, 'mesh': mesh}
  return pairwise.top_k(x, y, count, **options)[1]


def _mean_of_means(values: jax.Array, counted: jax.Array) -> jax.Array:
  """The mean over rows of their mean over counted values; rows without any are left out."""
  counts = jnp.sum(counted, 1)
  means = jnp.sum(jnp.where(counted, values, 0), 1) / jnp.maximum(counts, 1)
  return jnp.sum(means) / jnp.maximum(jnp.sum(counts > 0), 1)


def _check(embeddings, classes, targets, target_classes, neighbors) -> None:
  if embeddings.ndim != 2 or targets.shape[1:] != embeddings.shape[1:]:
    raise ValueError(
      f'embeddings {embeddings.shape} and targets {targets.shape} do not match; give [B, D] and '
      '[M, D]'
    )
  for name, own, of in (
    ('classes', classes, embeddings),
    ('target_classes', target_classes, targets),
  ):
    if own.shape != of.shape[:1]:
      raise ValueError(f'{name} {own.shape} do not match the vectors {of.shape}; give one per row')
  if len(targets) < 3:
    raise ValueError(f'{len(targets)} targets; neighbors take at least 3')
  if neighbors < 1:
    raise ValueError(f'neighbors = {neighbors}; use a number over 0')
