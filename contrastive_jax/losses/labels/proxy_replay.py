"""Proxy-based contrastive replay of a stream of classes, PCR and HPCR."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.labels.supervised import supervised
from contrastive_jax.losses.pairwise.matmul import accumulator, matmul


def pcr(
  embeddings: jax.Array, classes: jax.Array, proxies: jax.Array, *, scale: jax.Array | float
) -> jax.Array:
  """Proxy-based contrastive replay [1]: anchors attract the proxy of their class.

      L = − meanᵢ mean_{j: yⱼ = yᵢ} log softmaxⱼ sᵢⱼ,   sᵢⱼ = scale · zᵢ · w_{yⱼ}

  The candidates are the proxies of the batch, one per example. Those of one class are equal, so
  that L is a cross entropy over the classes of the batch, each weighted by its count n:

      L = meanᵢ( log Σ_c n_c exp(scale · zᵢ · w_c) − scale · zᵢ · w_{yᵢ} )

  Args:
    embeddings: [B, D] unit vectors: replayed and new examples, and augmentations of both.
    classes: [B] integers from 0 to C − 1.
    proxies: [C, D] unit vectors, the rows of a cosine classifier.
    scale: scalar, the inverse temperature; 1 / 0.09 in [1].

  Returns:
    Scalar, in nats; 0 where the batch has a single class.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Lin et al., PCR: Proxy-Based Contrastive Replay for Online Class-Incremental Continual
      Learning, 2023, https://arxiv.org/abs/2304.04408.

  See also `hpcr`.

  >>> round(float(pcr(jnp.eye(3), jnp.arange(3), jnp.eye(3), scale=1.0)), 4)      # log(e + 2) − 1
  0.5514
  """
  return jnp.mean(pcr_per_example(embeddings, classes, proxies, scale=scale))


def pcr_per_example(
  embeddings: jax.Array, classes: jax.Array, proxies: jax.Array, *, scale: jax.Array | float
) -> jax.Array:
  """The loss of each anchor [B], of which `pcr` is the mean; it takes the same arguments.

  >>> losses = pcr_per_example(jnp.eye(2), jnp.array([0, 0]), jnp.eye(2), scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # both have the logarithm of 2 candidates
  [0.6931, 0.6931]
  """
  _check(embeddings, classes, proxies)
  embeddings, proxies = _wide(embeddings, proxies)
  scores = scale * matmul(embeddings, proxies, 1, 1)
  counts = _counts(classes, len(proxies))
  total = jax.nn.logsumexp(scores, axis=1, b=counts.astype(scores.dtype))
  return total - jnp.take_along_axis(scores, classes[:, None], axis=1)[:, 0]


def hpcr(
  embeddings: jax.Array,
  classes: jax.Array,
  proxies: jax.Array,
  *,
  scale: jax.Array | float,
  min_batch_for_pairs: int = 1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The contrastive component of HPCR [1]: `pcr`, with pairs of examples in large batches.

  From `min_batch_for_pairs` rows on, the examples and their proxies are 2B anchors of a supervised
  contrastive loss: each compares itself with all others, and attracts those of its class. Fewer
  rows have the loss of `pcr`. [1] says that a step function of the batch size decides; its
  threshold is our option, and the authors' code keeps to `pcr` by default.

  Args:
    embeddings: as in `pcr`.
    classes: as in `pcr`.
    proxies: as in `pcr`.
    scale: as in `pcr`.
    min_batch_for_pairs: smallest B with pairs of examples; 0 for `pcr` at any size.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes do not match, or `min_batch_for_pairs` is below 0.

  References:
    [1] Lin et al., HPCR: Holistic Proxy-based Contrastive Replay for Online Continual Learning,
      2023, https://arxiv.org/abs/2309.15038.

  See also `periodic_temperature`, `logit_distillation` and `structure_distillation`, its other
  components, and `supervised`.

  >>> eye = jnp.eye(3)
  >>> round(float(hpcr(eye, jnp.arange(3), eye, scale=1.0)), 4)      # log(e + 4) − 1
  0.9048
  """
  _check(embeddings, classes, proxies)
  if min_batch_for_pairs < 0:
    raise ValueError(f'min_batch_for_pairs = {min_batch_for_pairs}; use 0 for no pairs, or more')
  if not 0 < min_batch_for_pairs <= len(embeddings):
    return pcr(embeddings, classes, proxies, scale=scale)
  embeddings, proxies = _wide(embeddings, proxies)
  options: dict[str, Any] = {'scale': scale, 'block_size': block_size, 'mesh': mesh}
  anchors = jnp.concatenate([embeddings, proxies[classes]])
  return supervised(anchors, jnp.concatenate([classes, classes]), **options)


def periodic_temperature(
  step: jax.Array | int, *, period: int = 500, low: float = 0.5625, high: float = 1.8
) -> jax.Array:
  """The factor on the contrastive loss of HPCR [1], a cosine of the step within the task.

      τ(t) = low + (high − low) (1 − cos(2π t / period)) / 2

  The defaults are those of [1], whose tasks on CIFAR-100 have 500 batches of 10.

  Args:
    step: integers, the number of batches of the task so far.
    period: in steps.
    low: the factor at the start of a period.
    high: the factor in its middle.

  Returns:
    The factor, float32, in the shape of `step`.

  Raises:
    ValueError: if the period is below 1.

  References:
    [1] Lin et al., https://arxiv.org/abs/2309.15038.

  >>> [round(float(periodic_temperature(step)), 4) for step in (0, 250)]
  [0.5625, 1.8]
  """
  if period < 1:
    raise ValueError(f'period = {period} steps; use 1 or more')
  return low + (high - low) * (1 - jnp.cos(2 * jnp.pi * step / period)) / 2


def logit_distillation(logits: jax.Array, stored: jax.Array, classes: jax.Array) -> jax.Array:
  """HPCR's proxy distillation [1]: replayed examples keep their logits of the classes of a batch.

      L = meanᵢ Σ_c n_c (lᵢ_c − oᵢ_c)² / Σ_c n_c

  with n_c the count of class c in the batch, replayed and new examples alike.

  Args:
    logits: [M, C] logits of replayed examples, scaled cosines in [1].
    stored: [M, C] those when the examples were written to the buffer; without a gradient.
    classes: [B] integers from 0 to C − 1, the classes of the batch.

  Returns:
    Scalar, a squared logit; weighted by 0.1 in [1], and by 0.01 on CIFAR-10.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Lin et al., https://arxiv.org/abs/2309.15038.

  >>> logits, stored = jnp.array([[1.0, 3.0]]), jnp.zeros((1, 2))
  >>> float(logit_distillation(logits, stored, jnp.array([0, 0, 0, 1])))      # (3 · 1 + 9) / 4
  3.0
  """
  if logits.ndim != 2 or logits.shape != stored.shape or classes.ndim != 1:
    raise ValueError(
      f'logits {logits.shape}, stored {stored.shape} and classes {classes.shape} do not match; '
      'give [M, C], [M, C] and [B]'
    )
  wide, old = _wide(logits, jax.lax.stop_gradient(stored))
  squares = jnp.mean(jnp.square(wide - old), axis=0)
  return jnp.vdot(squares, _counts(classes, logits.shape[1])) / len(classes)


def structure_distillation(
  embeddings: jax.Array,
  stored: jax.Array,
  *,
  scale: float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """HPCR's sample distillation [1]: replayed examples keep their similarities to each other.

      L = − meanᵢ Σ_{j ≠ i} softmax_{j ≠ i}(scale · oᵢ · oⱼ) log softmax_{j ≠ i}(scale · zᵢ · zⱼ)

  The least value is the mean entropy of the stored similarities, where both are equal.

  Args:
    embeddings: [M, D] unit vectors of replayed examples.
    stored: [M, D'] those when the examples were written to the buffer; without a gradient.
    scale: the inverse temperature, 1 / 0.09 in [1].
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats; weighted by 0.5 in [1].

  Raises:
    ValueError: if the shapes do not match, or M is 1.

  References:
    [1] Lin et al., https://arxiv.org/abs/2309.15038.

  >>> eye = jnp.eye(3)
  >>> round(float(structure_distillation(eye, eye, scale=1.0)), 4)      # log 2
  0.6931
  """
  if embeddings.ndim != 2 or stored.ndim != 2 or not 1 < len(embeddings) == len(stored):
    raise ValueError(
      f'embeddings {embeddings.shape} and stored {stored.shape} do not match; give [M, D] and '
      "[M, D'] with M of 2 or more"
    )
  options: dict[str, Any] = {'diagonal': False, 'block_size': block_size, 'mesh': mesh}
  options['scale'] = scale
  total, _ = pairwise.logsumexp(embeddings, embeddings, **options)
  both = (jax.lax.stop_gradient(stored), embeddings)
  (expected, _), _ = pairwise.expectation(both, both, _new, _stored, **options)
  return jnp.mean(total - expected)


def _stored(scores):
  return scores[0]


def _new(scores):
  return scores[1]


def _counts(classes, number):
  """How often each of C classes occurs, [C] float32."""
  return jnp.zeros(number).at[classes].add(1.0)


def _wide(*arrays):
  """The arrays in float32 or wider, so that sums over the batch are, and gradients of gathers."""
  return tuple(array.astype(accumulator(array.dtype)) for array in arrays)


def _check(embeddings, classes, proxies):
  matches = embeddings.ndim == proxies.ndim == 2 and embeddings.shape[1:] == proxies.shape[1:]
  if not matches or classes.shape != embeddings.shape[:1]:
    raise ValueError(
      f'embeddings {embeddings.shape}, classes {classes.shape} and proxies {proxies.shape} do not '
      'match; give [B, D], [B] and [C, D]'
    )
