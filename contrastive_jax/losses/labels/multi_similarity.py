"""The multi-similarity loss, with labels of pairs between 0 and 1."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses.labels.label_weights import hardest, log_sums, make_pairs


def multi_similarity(
  embeddings: jax.Array,
  classes: jax.Array,
  *,
  share: jax.Array | None = None,
  anchors: jax.Array | None = None,
  anchor_classes: jax.Array | None = None,
  diagonal: bool = False,
  alpha: float = 2.0,
  beta: float = 50.0,
  threshold: float = 0.5,
  mining: float | None = 0.1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The multi-similarity loss [1], and its form for mixtures, Metrix [2].

      L = meanᵢ( 1/α log(1 + Σⱼ yᵢⱼ e^(−α (sᵢⱼ − t))) + 1/β log(1 + Σⱼ (1 − yᵢⱼ) e^(β (sᵢⱼ − t))) )

  with s = a · x. Mining leaves of each anchor the negatives that are at most ε less similar than
  its least similar positive, and the positives at most ε more similar than its most similar
  negative. Mixtures, whose pairs are both, are not mined.

  Args:
    embeddings: [N, D] unit vectors.
    classes: as in `contrastive_margin`.
    share: as in `contrastive_margin`.
    anchors: as in `contrastive_margin`.
    anchor_classes: as in `contrastive_margin`.
    diagonal: as in `contrastive_margin`.
    alpha: α.
    beta: β.
    threshold: t, called λ in [1].
    mining: ε; None for all pairs.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar.

  Raises:
    ValueError: if the shapes do not match, or mixtures come without anchors.

  References:
    [1] Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning,
      2019, https://arxiv.org/abs/1904.06627.
    [2] Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, 2022,
      https://arxiv.org/abs/2106.04990.

  >>> turned = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
  >>> value = multi_similarity(turned, jnp.array([0, 0, 1]), mining=None)
  >>> round(float(value), 4)      # ⅔ · ½ log(1 + e^(−2 · 0.3)), and 0.6 and its mirror over 0.5
  0.2126
  """
  options: dict[str, Any] = {'share': share, 'anchors': anchors, 'anchor_classes': anchor_classes}
  options |= {'alpha': alpha, 'beta': beta, 'threshold': threshold, 'mining': mining}
  options |= {'diagonal': diagonal, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(multi_similarity_per_example(embeddings, classes, **options))


def multi_similarity_per_example(
  embeddings: jax.Array,
  classes: jax.Array,
  *,
  share: jax.Array | None = None,
  anchors: jax.Array | None = None,
  anchor_classes: jax.Array | None = None,
  diagonal: bool = False,
  alpha: float = 2.0,
  beta: float = 50.0,
  threshold: float = 0.5,
  mining: float | None = 0.1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each anchor [A], of which `multi_similarity` is the mean.

  It takes the same arguments.

  >>> turned = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
  >>> losses = multi_similarity_per_example(turned, jnp.array([0, 0, 1]), mining=0.3)
  >>> [round(float(loss), 4) for loss in losses]      # the first has an easy negative
  [0.0, 0.3189, 0.0]
  """
  pairs = make_pairs(embeddings, classes, share, anchors, anchor_classes)
  options: dict[str, Any] = {'diagonal': diagonal, 'block_size': block_size, 'mesh': mesh}
  limits = None
  if mining is not None and share is None:
    positive, negative = hardest(pairs, **options)
    limits = negative + mining, positive - mining
  sides = (alpha, threshold), (beta, threshold)
  positive, negative = log_sums(pairs, *sides, limits=limits, **options)
  return jax.nn.softplus(positive) / alpha + jax.nn.softplus(negative) / beta
