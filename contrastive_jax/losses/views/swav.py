"""The loss of SwAV: each view predicts the balanced assignment of the others to prototypes."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.views.features import wide


def swav(
  views: jax.Array,
  prototypes: jax.Array,
  *,
  scale: jax.Array | float,
  assigned: int = 2,
  epsilon: float = 0.05,
  iterations: int = 3,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The cross entropy between a view's prototypes and the assignments of other views [1].

      L = mean over the assigned views a and the views v ≠ a of
            meanᵢ( logsumexpₖ s zᵥᵢ·cₖ − Σₖ Qₐᵢₖ s zᵥᵢ·cₖ )
      Qₐ = Sinkhorn(zₐ cᵀ / ε)

  Qₐ assigns the views a of the batch to the prototypes c, to all equally often; see
  `pairwise.sinkhorn`. The first views are assigned; local views, which come after them, only
  predict. The arrays over examples and prototypes do not exist: the sum over k is s zᵥᵢ times the
  expectation of the prototypes under Qₐᵢ. The authors' code is facebookresearch/swav, main_swav.py.

  Args:
    views: [B, V, D] unit vectors of V views.
    prototypes: [K, D] unit vectors. With a mesh, K divides over its shards.
    scale: s, the inverse temperature; 10 in [1].
    assigned: how many views are assigned, from the first; at most V.
    epsilon: ε over 0, the temperature of the assignments.
    iterations: of Sinkhorn, see `pairwise.sinkhorn`.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats. The assignments have no gradient.

  Raises:
    ValueError: if the shapes do not match, V is below 2, `assigned` is not from 1 to V, ε is not
      above 0, or as `pairwise.sinkhorn`.

  References:
    [1] Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
      2020, https://arxiv.org/abs/2006.09882.

  See also `swapped_assignment`, whose prototypes are the other modality's batch.

  >>> views = jnp.stack([jnp.eye(4), jnp.eye(4)], 1)
  >>> round(float(swav(views, jnp.eye(4), scale=1.0)), 4)      # log(e + 3) − 1
  0.7437
  """
  options: dict[str, Any] = {'assigned': assigned, 'epsilon': epsilon, 'iterations': iterations}
  options |= {'block_size': block_size, 'mesh': mesh}
  return jnp.mean(swav_per_example(views, prototypes, scale=scale, **options))


def swav_per_example(
  views: jax.Array,
  prototypes: jax.Array,
  *,
  scale: jax.Array | float,
  assigned: int = 2,
  epsilon: float = 0.05,
  iterations: int = 3,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], averaged over its views; `swav` is its mean.

  It takes the same arguments.

  >>> views = jnp.stack([jnp.eye(2), jnp.eye(2)], 1)
  >>> losses = swav_per_example(views, jnp.eye(2), scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  _check(views, prototypes, assigned, epsilon)
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh}
  # Float32 throughout: the gradients of several products add up.
  views, prototypes = wide(views), wide(prototypes)
  vectors = [views[:, number] for number in range(views.shape[1])]
  totals = [pairwise.logsumexp(x, prototypes, scale=scale, **options)[0] for x in vectors]
  found = []
  for own, aim in enumerate(vectors[:assigned]):
    goals = jax.lax.stop_gradient((aim, prototypes))
    bias = pairwise.sinkhorn(*goals, scale=1 / epsilon, iterations=iterations, **options)
    given: dict[str, Any] = dict(zip(('rows', 'columns'), bias, strict=True)) | options
    (mean, _), _ = pairwise.expectation(
      *goals, (None, prototypes), pairwise.biased, scale=1 / epsilon, **given
    )
    others = [number for number in range(len(vectors)) if number != own]
    found += [totals[n] - scale * pairwise.paired(vectors[n], mean) for n in others]
  return sum(found[1:], found[0]) / len(found)


def _check(views: jax.Array, prototypes: jax.Array, assigned: int, epsilon: float) -> None:
  shapes = views.shape, prototypes.shape
  if [len(shape) for shape in shapes] != [3, 2] or shapes[0][-1] != shapes[1][-1] or 0 in shapes[0]:
    raise ValueError(
      f'views {shapes[0]} and prototypes {shapes[1]}; give [B, V, D] and [K, D], not empty'
    )
  if views.shape[1] < 2:
    raise ValueError(f'views {shapes[0]} are of one view; give 2 or more')
  if not 1 <= assigned <= views.shape[1]:
    raise ValueError(f'assigned = {assigned} of {views.shape[1]} views; use 1 up to that')
  if not epsilon > 0:
    raise ValueError(f'epsilon = {epsilon}; use a number over 0')
