"""Sums over pairs of an anchor and an example, weighted by the label of the pair."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise

# The logit of pairs that do not count: finite, as `pairwise` asks for, and exp of it is 0.
NEVER = -1e9


class Pairs(NamedTuple):
  """Anchors and examples, whose labels weigh the pairs.

  The label y of a pair is 1 for one class, 0 for two, and for a mixture of two examples the share
  of the anchor's class in it. Pairs of an anchor and a mixture count if one of the two classes is
  the anchor's.

  Attributes:
    anchors: [A, D] unit vectors.
    anchor_classes: [A] integers.
    embeddings: [N, D] unit vectors.
    classes: [N] integers, or [N, 2] of mixtures.
    share: [N], of the first class in each mixture; None without mixtures.
  """

  anchors: jax.Array
  anchor_classes: jax.Array
  embeddings: jax.Array
  classes: jax.Array
  share: jax.Array | None = None

  @property
  def side_data(self) -> dict[str, Any]:
    """What `labels` reads, for a reduction of `pairwise`."""
    return {'rows': self.anchor_classes, 'columns': (self.classes, self.share)}


def make_pairs(
  embeddings: jax.Array,
  classes: jax.Array,
  share: jax.Array | None,
  anchors: jax.Array | None,
  anchor_classes: jax.Array | None,
) -> Pairs:
  """The pairs of examples with anchors, by default with each other.

  Raises:
    ValueError: if the shapes do not match, or mixtures come without anchors.
  """
  size = embeddings.shape[:1]
  if (
    embeddings.ndim != 2
    or 0 in embeddings.shape
    or classes.shape != (size if share is None else (*size, 2))
  ):
    raise ValueError(
      f'embeddings {embeddings.shape} and classes {classes.shape} do not match; give [N, D] and '
      '[N], or [N, 2] of mixtures with their share [N]'
    )
  if share is not None and share.shape != size:
    raise ValueError(f'share {share.shape} of embeddings {embeddings.shape}; give [N] for [N, D]')
  if anchors is None and anchor_classes is None:
    if share is not None:
      raise ValueError(f'share {share.shape} without anchors; give anchors and anchor_classes')
    return Pairs(embeddings, classes, embeddings, classes)
  if anchors is None or anchor_classes is None:
    given = [None if a is None else a.shape for a in (anchors, anchor_classes)]
    raise ValueError(f'anchors and anchor_classes are {given}; give both or none')
  if anchors.shape[1:] != embeddings.shape[1:] or anchor_classes.shape != anchors.shape[:1]:
    raise ValueError(
      f'anchors {anchors.shape}, anchor_classes {anchor_classes.shape} and embeddings '
      f'{embeddings.shape} do not match; give [A, D], [A] and [N, D]'
    )
  return Pairs(anchors, anchor_classes, embeddings, classes, share)


def labels(anchor_classes: jax.Array, columns: Any) -> tuple[jax.Array, jax.Array]:
  """The labels [b, n] of a block of pairs, and which pairs count."""
  classes, share = columns
  if share is None:
    label = anchor_classes[:, None] == classes
    return label.astype(jnp.float32), jnp.ones_like(label)
  of_first, of_second = (anchor_classes[:, None] == classes[:, place] for place in (0, 1))
  return share * of_first + (1 - share) * of_second, of_first | of_second


def log_sums(
  pairs: Pairs,
  positive: tuple[float, float],
  negative: tuple[float, float],
  *,
  limits: tuple[jax.Array, jax.Array] | None = None,
  **options: Any,
) -> tuple[jax.Array, jax.Array]:
  """The log sums of exponentials over positive and over negative pairs of each anchor.

      log Σ y exp(−a (s − m))   and   log Σ (1 − y) exp(b (s − n)),   s = anchors embeddingsᵀ

  Args:
    pairs: the pairs.
    positive: (a, m).
    negative: (b, n).
    limits: [A] and [A], under which similarities are positive and over which they are negative;
      None for all pairs.
    **options: of `pairwise.logsumexp`, such as `mesh` and `diagonal`.

  Returns:
    [A] and [A], float32; under `NEVER` / 2 where no pair counts.
  """
  (a, m), (b, n) = positive, negative
  sides, columns = [pairs.side_data['rows']] * 2, pairs.side_data['columns']
  if limits is not None:
    below, above = limits
    # The terms see logits, in which the limits of positive pairs turn round.
    sides = [(sides[0], -a * (below - m)), (sides[0], b * (above - n))]
  found = []
  for term, side, slope, middle in zip(
    (_positive_logit, _negative_logit), sides, (-a, b), (m, n), strict=True
  ):
    given: dict[str, Any] = {'rows': side, 'columns': columns, **options}
    given |= {'scale': slope, 'bias': -slope * middle}
    found.append(pairwise.logsumexp(pairs.anchors, pairs.embeddings, term, **given)[0])
  return found[0], found[1]


def _positive_logit(scores, rows, columns):
  return _weighted(scores, rows, columns, lambda label: label)


def _negative_logit(scores, rows, columns):
  return _weighted(scores, rows, columns, lambda label: 1 - label)


def _weighted(scores, rows, columns, weigh):
  classes, limit = rows if isinstance(rows, tuple) else (rows, None)
  label, counts = labels(classes, columns)
  weight = weigh(label)
  counts &= weight > 0
  if limit is not None:
    counts &= scores > limit[:, None]
  return jnp.where(counts, scores + jnp.log(jnp.where(counts, weight, 1.0)), NEVER)


def hardest(pairs: Pairs, **options: Any) -> tuple[jax.Array, jax.Array]:
  """The least similar positive and the most similar negative of each anchor, without gradients.

  Args:
    pairs: the pairs, without mixtures.
    **options: of `pairwise.top_k`.

  Returns:
    [A] and [A] similarities; −`NEVER` and `NEVER` where there is none.
  """
  anchors, embeddings = jax.lax.stop_gradient((pairs.anchors, pairs.embeddings))
  farthest, nearest = (
    pairwise.top_k(anchors, embeddings, 1, term, **pairs.side_data, **options)[0][:, 0]
    for term in (_distant_positive, _near_negative)
  )
  return jnp.minimum(-farthest, -NEVER), jnp.maximum(nearest, NEVER)


def _distant_positive(scores, rows, columns):
  return jnp.where(labels(rows, columns)[0] > 0, -scores, NEVER)


def _near_negative(scores, rows, columns):
  return jnp.where(labels(rows, columns)[0] > 0, NEVER, scores)
