"""CTVIS: embeddings of instances over the frames of a video, contrasted with a memory bank."""

from typing import Any

import jax
import jax.numpy as jnp

_UNDER_ROOT = 1e-12


def tracks(
  anchors: jax.Array,
  positives: jax.Array,
  negatives: jax.Array,
  *,
  positive_valid: jax.Array | None = None,
  negative_valid: jax.Array | None = None,
  weight: float = 2.0,
  auxiliary: float = 3.0,
) -> jax.Array:
  """The loss of contrastive items [1]: the mean of `tracks_per_item` over items with a positive.

  Args:
    anchors: as in `tracks_per_item`, as are all others.
    positives: as above.
    negatives: as above.
    positive_valid: as above.
    negative_valid: as above.
    weight: as above.
    auxiliary: as above.

  Returns:
    Scalar, in nats; 0 if no item has a positive.

  Raises:
    ValueError: as `tracks_per_item`.

  References:
    [1] As of `tracks_per_item`.

  >>> v = jnp.eye(2)
  >>> loss = tracks(v, v[:, None], v[::-1, None], auxiliary=0.0, weight=1.0)
  >>> round(float(loss), 4)      # log(1 + e⁰⁻¹)
  0.3133
  """
  options: dict[str, Any] = {'positive_valid': positive_valid, 'negative_valid': negative_valid}
  options |= {'weight': weight, 'auxiliary': auxiliary}
  items = tracks_per_item(anchors, positives, negatives, **options)
  if positive_valid is None:
    return jnp.mean(items)
  return jnp.sum(items) / jnp.maximum(jnp.sum(jnp.any(positive_valid, 1)), 1)


def tracks_per_item(
  anchors: jax.Array,
  positives: jax.Array,
  negatives: jax.Array,
  *,
  positive_valid: jax.Array | None = None,
  negative_valid: jax.Array | None = None,
  weight: float = 2.0,
  auxiliary: float = 3.0,
) -> jax.Array:
  """The loss of each contrastive item of CTVIS [1], an instance in a frame.

      Lᵢ = weight · log(1 + Σ_p Σ_n exp(v·n − v·p)) + auxiliary · mean of (cos − label)²

  It has no temperature. The mean is over positives, of label 1, and negatives, of label 0; nothing
  is detached.

  Args:
    anchors: [I, D] embeddings v, of any length.
    positives: [I, P, D] of the same instance.
    negatives: [I, N, D] of others.
    positive_valid: [I, P] which of them count; None for all.
    negative_valid: [I, N] likewise.
    weight: of the first term.
    auxiliary: of the second.

  Returns:
    [I], in nats, float32 or wider; 0 for items without a positive.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Ying et al., CTVIS: Consistent Training for Online Video Instance Segmentation, 2023,
      https://arxiv.org/abs/2307.12616; formulas as in KainingYing/CTVIS:
      ctvis/modeling/cl_plugin/ct_cl_plugin.py.

  >>> v, other = jnp.array([[1.0, 0.0]]), jnp.array([[[0.0, 1.0]]])
  >>> (loss,) = tracks_per_item(v, v[None], other, auxiliary=0.0, weight=1.0)
  >>> round(float(loss), 4)      # log(1 + e⁰⁻¹)
  0.3133
  """
  _check(anchors, positives, negatives, positive_valid, negative_valid)
  dtype = jnp.promote_types(anchors.dtype, jnp.float32)
  v, near, far = (x.astype(dtype) for x in (anchors, positives, negatives))
  counted = [
    jnp.ones(x.shape[:2], bool) if valid is None else valid.astype(bool)
    for x, valid in ((near, positive_valid), (far, negative_valid))
  ]
  of_near, of_far = (jnp.einsum('id,ind->in', v, x) for x in (near, far))
  masked = (
    jnp.where(counted[0], -of_near, -jnp.inf),
    jnp.where(counted[1], of_far, -jnp.inf),
  )
  # Items without a positive or a negative have no pair, whose exponentials sum to 0.
  has = jnp.any(counted[0], 1) & jnp.any(counted[1], 1)
  safe = [jnp.where(has[:, None], scores, 0) for scores in masked]
  spread = sum(jax.nn.logsumexp(scores, 1) for scores in safe)
  contrast = jnp.where(has, jax.nn.softplus(spread), 0)
  valid, label = jnp.concatenate(counted, 1), jnp.arange(of_near.shape[1] + of_far.shape[1])
  cosines = jnp.einsum('id,ind->in', _unit(v), _unit(jnp.concatenate([near, far], 1)))
  errors = jnp.where(valid, (cosines - (label < of_near.shape[1])) ** 2, 0)
  mean = jnp.sum(errors, 1) / jnp.maximum(jnp.sum(valid, 1), 1)
  loss = weight * contrast + auxiliary * mean
  return jnp.where(jnp.any(counted[0], 1), loss, 0)


def momentum_bank(embeddings: jax.Array, seen: jax.Array) -> jax.Array:
  """The similarity-guided momentum embeddings of CTVIS [1], after each frame of a video.

      ê ← (1 − β) ê + β e_t,   β = max(0, mean over earlier frames k of cos(e_t, e_k))

  of the frames in which an instance was seen; the first embedding starts it.

  Args:
    embeddings: [T, N, D] of N instances in T frames.
    seen: [T, N] whether an instance is in a frame.

  Returns:
    [T, N, D], those after frame t; 0 before an instance is seen.

  References:
    [1] As of `tracks_per_item`.

  >>> e = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])[:, None]
  >>> momentum_bank(e, jnp.ones((3, 1), bool))[:, 0, 0].tolist()       # β is 0, then 1/2
  [1.0, 1.0, 1.0]
  """
  if embeddings.ndim != 3 or seen.shape != embeddings.shape[:2]:
    raise ValueError(
      f'embeddings {embeddings.shape} and seen {seen.shape} do not match; give [T, N, D] and [T, N]'
    )
  directions = _unit(embeddings)
  cosines = jnp.einsum('tnd,knd->tkn', directions, directions)
  bank, banks = jnp.zeros_like(embeddings[0]), []
  for t, (now, here) in enumerate(zip(embeddings, seen, strict=True)):
    earlier = seen[:t]
    count = jnp.sum(earlier, 0)
    mean = jnp.sum(jnp.where(earlier, cosines[t, :t], 0), 0) / jnp.maximum(count, 1)
    beta = jnp.where(count > 0, jax.nn.relu(mean), 1.0)[:, None]
    bank = jnp.where(here[:, None], (1 - beta) * bank + beta * now, bank)
    banks.append(bank)
  return jnp.stack(banks)


def _unit(x: jax.Array) -> jax.Array:
  return x / jnp.sqrt(jnp.sum(x * x, -1, keepdims=True) + _UNDER_ROOT)


def _check(anchors, positives, negatives, positive_valid, negative_valid) -> None:
  I, D = anchors.shape if anchors.ndim == 2 else (None, None)  # noqa: E741
  for name, x, valid in (
    ('positives', positives, positive_valid),
    ('negatives', negatives, negative_valid),
  ):
    if I is None or x.ndim != 3 or (x.shape[0], x.shape[2]) != (I, D):
      raise ValueError(
        f'anchors {anchors.shape} and {name} {x.shape} do not match; give [I, D] and [I, N, D]'
      )
    if valid is not None and valid.shape != x.shape[:2]:
      raise ValueError(f'{name} {x.shape} and their valid ones {valid.shape} do not match')
