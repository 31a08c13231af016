"""GroCo: a differentiable sorting network ranks the positives above the hardest negatives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_views
from contrastive_jax.losses.views.multi_view import products
from contrastive_jax.losses.views.sorting import soft_sort


def groco(
  views: jax.Array,
  *,
  k: int = 10,
  steepness: float = 1.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Group ordering constraints on the similarities of each view, GroCo [1].

      L = −mean log Σ_{r ∈ G(c)} P_cr

  over the views z of an example and their n = k + V − 1 candidates c: the positives, the V − 1
  other views of the example, and the negatives, the k views of the same number of other examples
  with the greatest similarities. P is the soft permutation that `soft_sort` gives of the cosines
  ⟨z, c⟩ in ascending order, negatives before positives. G(c) are the ranks of the candidate's
  group: the first k of negatives, and the last V − 1 of positives. A candidate's ranks have a sum
  of 1, so this is also the binary cross entropy of each group's ranks, with the same value for both
  groups. No gradient flows into candidates.

  Args:
    views: [B, V, D] unit vectors of at least two views of each example.
    k: the number of negatives per view, below B; 10 in [1].
    steepness: of the comparisons. With 1, as in [1], cosines are sorted very softly: of two views
      and k of 10, a positive of 1 above negatives of −1 leaves a loss of 0.147, and where all are
      equal it is 0.202.
    block_size: as in `pairwise.top_k`.
    mesh: as in `pairwise.top_k`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shape is another, k is outside of 1 to B − 1, the steepness is not over 0, or
      as `pairwise.top_k`.

  References:
    [1] Shvetsova et al., Learning by Sorting: Self-supervised Learning with Group Ordering
      Constraints, 2023, https://arxiv.org/abs/2301.02009; as in ninatu/learning_by_sorting:
      learning_by_sorting/losses/groco.py.

  >>> views = jnp.stack([jnp.eye(4)] * 2, 1)
  >>> round(float(groco(views, k=1)), 4)      # −log(½ + arctan(1) / π)
  0.2877
  """
  options: dict[str, Any] = {'k': k, 'steepness': steepness, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(groco_per_example(views, **options))


def groco_per_example(
  views: jax.Array,
  *,
  k: int = 10,
  steepness: float = 1.0,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], averaged over its views; `groco` is its mean.

  It takes the same arguments.

  >>> losses = groco_per_example(jnp.stack([jnp.eye(2)] * 2, 1), k=1)
  >>> [round(float(loss), 4) for loss in losses]
  [0.2877, 0.2877]
  """
  check_views(views)
  B = len(views)
  if not 1 <= k < B:
    raise ValueError(f'k = {k} for views {views.shape}; use 1 to {B - 1}, the other examples')
  options: dict[str, Any] = {'diagonal': False, 'block_size': block_size, 'mesh': mesh}

  def negatives_of(view):
    return pairwise.top_k(view, jax.lax.stop_gradient(view), k, **options)[0][:, ::-1]

  # A loop: the gradient of `jax.lax.map` would store which pairs count, B x B.
  negatives = jnp.stack([negatives_of(views[:, number]) for number in range(views.shape[1])], 1)
  scores = jnp.concatenate([negatives, _positives(views)], 2)
  _, permutation = soft_sort(scores, steepness=steepness)
  own = jnp.concatenate(
    [jnp.sum(permutation[..., :k, :k], -1), jnp.sum(permutation[..., k:, k:], -1)], 2
  )
  # Where rounding leaves 0 of a steep network, there is no gradient.
  log_own = jnp.log(jnp.maximum(own, jnp.finfo(own.dtype).tiny))
  return -jnp.mean(log_own, (1, 2))


def _positives(views: jax.Array) -> jax.Array:
  """Cosines of each view with the others of its example, ascending [B, V, V − 1]."""
  V = views.shape[1]
  cosines = products(views, jax.lax.stop_gradient(views))
  own, others = np.nonzero(~np.eye(V, dtype=bool))
  return jnp.sort(cosines[:, own, others].reshape(-1, V, V - 1))
