"""The contrastive loss of metric learning, with labels of pairs between 0 and 1."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.labels.label_weights import labels, make_pairs

# The squared distance under which a pair has the distance 0, and no gradient.
_SMALLEST = 1e-6


def contrastive_margin(
  embeddings: jax.Array,
  classes: jax.Array,
  *,
  share: jax.Array | None = None,
  anchors: jax.Array | None = None,
  anchor_classes: jax.Array | None = None,
  diagonal: bool = False,
  positive_margin: float = 0.0,
  negative_margin: float = 0.5,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The contrastive loss [1], and its form for mixtures, Metrix [2].

      L = mean⁺ yᵢⱼ (dᵢⱼ − m⁺)₊ + mean⁻ (1 − yᵢⱼ) (m⁻ − dᵢⱼ)₊,   dᵢⱼ = ‖aᵢ − xⱼ‖

  The means are over the pairs with y > 0, or y < 1, whose margin is violated: those that are not 0.
  The label y of a pair is 1 for one class and 0 for two. For a mixture of two examples, with two
  classes, it is the share of the anchor's class, and an anchor of a third class does not count.

  Args:
    embeddings: [N, D] unit vectors.
    classes: [N] integers; or [N, 2], the two classes of each mixture.
    share: [N] numbers from 0 to 1, λ: the share of the first class in each mixture.
    anchors: [A, D] unit vectors; by default the embeddings.
    anchor_classes: [A] integers.
    diagonal: whether pairs i = j count. Of mixtures of an anchor with a negative these are the
      only pairs of the anchor, which its own number as class selects.
    positive_margin: m⁺; 0 in [2].
    negative_margin: m⁻; 0.5 in [2].
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar; 0 if no pair violates its margin.

  Raises:
    ValueError: if the shapes do not match, or mixtures come without anchors.

  References:
    [1] Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, 2006.
    [2] Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, 2022,
      https://arxiv.org/abs/2106.04990; the code has distances, the margins and the means.

  >>> turned = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])      # 0 and 1 are √0.4 apart
  >>> round(float(contrastive_margin(turned, jnp.array([0, 0, 1]))), 4)
  0.6325
  >>> mixture = {'anchors': turned[:1], 'anchor_classes': jnp.array([0]), 'diagonal': True}
  >>> own, share = jnp.array([[0, 1]]), jnp.array([0.25])
  >>> round(float(contrastive_margin(turned[1:2], own, share=share, **mixture)), 4)  # a quarter
  0.1581
  """
  options: dict[str, Any] = {'share': share, 'anchors': anchors, 'anchor_classes': anchor_classes}
  options |= {'positive_margin': positive_margin, 'negative_margin': negative_margin}
  options |= {'diagonal': diagonal, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(contrastive_margin_per_example(embeddings, classes, **options))


def contrastive_margin_per_example(
  embeddings: jax.Array,
  classes: jax.Array,
  *,
  share: jax.Array | None = None,
  anchors: jax.Array | None = None,
  anchor_classes: jax.Array | None = None,
  diagonal: bool = False,
  positive_margin: float = 0.0,
  negative_margin: float = 0.5,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each anchor [A], of which `contrastive_margin` is the mean.

  It takes the same arguments. Sums over an anchor's pairs are multiplied by A / (the number of
  pairs, of all anchors, that the mean is over).

  >>> turned = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
  >>> losses = contrastive_margin_per_example(turned, jnp.array([0, 0, 1]))
  >>> [round(float(loss), 4) for loss in losses]      # 3/2 √0.4
  [0.9487, 0.9487, 0.0]
  """
  pairs = make_pairs(embeddings, classes, share, anchors, anchor_classes)
  size = pairs.anchors.shape[:1]
  margins = [jnp.full(size, margin) for margin in (positive_margin, negative_margin)]
  sums, _ = pairwise.sum(
    pairs.anchors,
    pairs.embeddings,
    _violations,
    rows=(pairs.anchor_classes, *margins),
    columns=(pairs.classes, pairs.share),
    diagonal=diagonal,
    block_size=block_size,
    mesh=mesh,
  )
  (positive, positives), (negative, negatives) = sums
  means = [
    total / jnp.maximum(jnp.sum(count), 1)
    for total, count in ((positive, positives), (negative, negatives))
  ]
  return size[0] * (means[0] + means[1])


def _violations(scores, rows, columns):
  """Weighted violations of the positive and of the negative margin, and which are not 0."""
  classes, positive_margin, negative_margin = rows
  label, counts = labels(classes, columns)
  squared = 2 - 2 * scores
  far = squared > _SMALLEST
  distance = jnp.where(far, jnp.sqrt(jnp.where(far, squared, 1.0)), 0.0)
  parts = (
    (label, distance - positive_margin[:, None]),
    (1 - label, negative_margin[:, None] - distance),
  )
  found = []
  for weight, violation in parts:
    violated = counts & (weight > 0) & (violation > 0)
    found.append((jnp.where(violated, weight * violation, 0.0), violated))
  return tuple(found)
