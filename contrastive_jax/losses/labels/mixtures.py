"""Sums over mixtures of embeddings, for `supremix`: one streamed pass, linear in the batch."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise

# Of the blocks, of which there are 2 · window · (window + 2) arrays.
_BLOCK_SIZE = 256


def mixtures(
  embeddings: jax.Array,
  steps: jax.Array,
  levels: jax.Array,
  shares: jax.Array | None,
  window: int,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[list[jax.Array], jax.Array | float, jax.Array | float]:
  """The mixtures of each anchor, see `supremix`.

  Args:
    embeddings: [B, D] unit vectors.
    steps: [B] integers, the numbers.
    levels: [B] integers whose distances weigh negative mixtures.
    shares: as in `supremix`.
    window: as in `supremix`.
    scale: as in `supremix`.
    block_size: as in `pairwise.logsumexp`; by default 256.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    The logarithms [B] of the sums of the exponentials of negative and of positive mixtures, as far
    as there are any; the sum [B] of the scores of positive mixtures, and their number [B].
  """
  fixed = jax.lax.stop_gradient(embeddings)
  top = jax.lax.stop_gradient(scale)
  rows = {'steps': steps, 'levels': levels, 'top': jnp.full(steps.shape, top, float)}
  if shares is not None:
    rows['shares'] = jax.lax.stop_gradient(shares)
    rows['own'] = scale * pairwise.paired(embeddings, fixed)
  sums, _ = pairwise.sum(
    *(embeddings, fixed, _Mixtures(window)),
    rows=rows,
    columns={'steps': steps, 'levels': levels},
    scale=scale,
    block_size=block_size or _BLOCK_SIZE,
    mesh=mesh,
  )
  logits = [top + _log(sums['negative'])] if shares is not None else []
  if not window:
    return logits, 0.0, 0.0
  (below, above), (below_scores, above_scores), (below_count, above_count) = (
    [jnp.array(side) for side in sums[name]] for name in ('powers', 'scores', 'counts')
  )
  distance = jnp.arange(1, window + 1)
  # share[p, q] = q / (p + q), of the example below in a mixture with one above.
  share = distance / (distance[:, None] + distance)
  logits.append(top + _log(jnp.einsum('pqb,qpb->b', below, above)))
  scores = jnp.einsum('pq,pb,qb->b', share, below_scores, above_count)
  scores += jnp.einsum('pq,pb,qb->b', share, above_scores, below_count)
  return logits, scores, jnp.sum(below_count, 0) * jnp.sum(above_count, 0)


@dataclasses.dataclass(frozen=True)
class _Mixtures:
  """What is summed over the columns for the mixtures of a row.

  `negative` is the weighted exponential of the negative mixture. Of the columns below the row and
  of those above it, by distance d up to the window: `powers`, exp(o / (d + o) · score) for each
  distance o of a partner on the other side, `scores` and `counts`.
  """

  window: int

  def __call__(self, scores: jax.Array, rows: Any, columns: Any) -> Any:
    """The tree of [b, n]."""
    rows = jax.tree.map(lambda a: a[:, None], rows)
    gap, relative = rows['steps'] - columns['steps'], scores - rows['top']
    found: dict[str, Any] = {}
    if 'shares' in rows:
      own, rest = rows['shares'], 1 - rows['shares']
      weight = 1 + rest * jnp.abs(rows['levels'] - columns['levels'])
      mixed = jnp.exp(own * (rows['own'] - rows['top']) + rest * relative)
      found['negative'] = jnp.where(gap != 0, weight * mixed, 0.0)
    if not self.window:
      return found
    distances = range(1, self.window + 1)
    powers = [jnp.exp(relative * (o / (jnp.abs(gap) + o))) for o in distances]
    sides = [[gap == sign * d for d in distances] for sign in (1, -1)]
    found['counts'] = sides
    found['scores'] = [[jnp.where(at, scores, 0.0) for at in side] for side in sides]
    found['powers'] = [[[jnp.where(at, a, 0.0) for a in powers] for at in side] for side in sides]
    return found


def _log(sums):
  """The logarithm; −inf without a gradient at 0."""
  return jnp.where(sums > 0, jnp.log(jnp.where(sums > 0, sums, 1.0)), -jnp.inf)
