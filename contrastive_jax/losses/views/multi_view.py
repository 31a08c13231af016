"""MV-InfoNCE and MV-DHEL: contrastive losses of several views with one term per example."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_views


def mv_info_nce(
  views: jax.Array,
  *,
  scale: jax.Array | float,
  cross_view: bool = False,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """InfoNCE of several views, with all pairs of views in one term per example, MV-InfoNCE [1].

      L = meanᵢ( log Σ_l Σ_{(j,m) ≠ (i,l)} exp(⟨z_il, z_jm⟩ s) − log Σ_{l ≠ m} exp(⟨z_il, z_im⟩ s) )

  The denominator runs over the pairs of each view of the example with all other vectors of the
  batch, its own positives included. With two views it is at least `nt_xent`, of which it takes the
  logarithm of a sum in place of a sum of logarithms.

  Args:
    views: [B, V, D] unit vectors of at least two views of each example.
    scale: scalar s, the inverse temperature; 10 in [1] on ImageNet.
    cross_view: whether the denominator leaves out pairs of the same view, m = l, as the authors'
      README has it; their code keeps them.
    block_size: as in `pairwise.logsumexp`, of B V vectors.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats; 0 for B = 1.

  Raises:
    ValueError: if the shape is another, or as `pairwise.logsumexp`.

  References:
    [1] Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025,
      https://arxiv.org/abs/2507.06979; as in pakoromilas/Multi-View-CL: models/losses.py.

  See also `mv_dhel`, and `pairwise_nt_xent`, `averaged_nt_xent` and `poly_view`.

  >>> views = jnp.stack([jnp.eye(4)] * 3, 1)
  >>> round(float(mv_info_nce(views, scale=1.0)), 4)      # log(1 + 3 · 3 / 2 / e)
  0.9766
  """
  options: dict[str, Any] = {'cross_view': cross_view, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(mv_info_nce_per_example(views, scale=scale, **options))


def mv_info_nce_per_example(
  views: jax.Array,
  *,
  scale: jax.Array | float,
  cross_view: bool = False,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], of which `mv_info_nce` is the mean; it takes the same arguments.

  >>> views = jnp.stack([jnp.eye(2)] * 2, 1)
  >>> losses = mv_info_nce_per_example(views, scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(1 + 2 / e)
  [0.5514, 0.5514]
  """
  check_views(views)
  B, V, _ = views.shape
  vectors = views.reshape(B * V, -1)
  options: dict[str, Any] = {'diagonal': False, 'block_size': block_size, 'mesh': mesh}
  options['exclude'] = jnp.tile(jnp.arange(V), B) if cross_view else None
  totals, _ = pairwise.logsumexp(vectors, vectors, scale=scale, **options)
  # Each pair of views occurs in both orders.
  positive = math.log(2) + _log_positives(views, scale)
  return jax.nn.logsumexp(totals.reshape(B, V), axis=1) - positive


def mv_dhel(
  views: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The decoupled loss of several views, whose denominators are of one view each, MV-DHEL [1].

      L = meanᵢ( Σ_l log Σ_{j ≠ i} exp(⟨z_il, z_jl⟩ s) − log Σ_{l < m} exp(⟨z_il, z_im⟩ s) )

  Views of an example attract each other, and the examples of each view repel each other. With two
  views it is DHEL, the decoupled hyperspherical energy loss.

  Args:
    views: [B, V, D] unit vectors of at least two views of each example.
    scale: scalar s, the inverse temperature; from 2 to 10 in [1].
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shape is another, B is 1: one example has no negatives, or as
      `pairwise.logsumexp`.

  References:
    [1] Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025,
      https://arxiv.org/abs/2507.06979; as in pakoromilas/Multi-View-CL: models/losses.py.

  See also `mv_info_nce`.

  >>> views = jnp.stack([jnp.eye(4)] * 3, 1)
  >>> round(float(mv_dhel(views, scale=1.0)), 4)      # 3 log 3 − log 3 − 1
  1.1972
  """
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh}
  return jnp.mean(mv_dhel_per_example(views, scale=scale, **options))


def mv_dhel_per_example(
  views: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], of which `mv_dhel` is the mean; it takes the same arguments.

  >>> views = jnp.stack([jnp.eye(3)] * 2, 1)
  >>> losses = mv_dhel_per_example(views, scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # 2 log 2 − 1
  [0.3863, 0.3863, 0.3863]
  """
  check_views(views)
  if len(views) < 2:
    raise ValueError(f'views {views.shape} has one example, and no negatives; give 2 or more')
  B, V, _ = views.shape
  vectors = by_view(views)
  options: dict[str, Any] = {'diagonal': False, 'block_size': block_size, 'mesh': mesh}
  totals, _ = pairwise.logsumexp(vectors, vectors, scale=scale, groups=V, **options)
  return jnp.sum(totals.reshape(V, B), axis=0) - _log_positives(views, scale)


def by_view(views: jax.Array, order: np.ndarray | slice = np.s_[:]) -> jax.Array:
  """The vectors [V' B, D] of the given views of [B, V, D], one view after the other.

  With so many `groups`, a streamed reduction pairs the vectors of each view, or of each pair of
  views. It maps over groups within its own gradient; that of `jax.lax.map` over the reduction would
  store which pairs count, B x B.
  """
  return jnp.moveaxis(views[:, order], 1, 0).reshape(-1, views.shape[-1])


def products(x: jax.Array, y: jax.Array) -> jax.Array:
  """The products of the views of each example [B, V, W], float32, of [B, V, D] and [B, W, D]."""
  dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
  x, y = x.astype(dtype), y.astype(dtype)
  return jnp.einsum('bvd,bwd->bvw', x, y, precision=jax.lax.Precision.HIGHEST)


def _log_positives(views, scale):
  """Log Σ exp over the pairs of views of each example [B]."""
  left, right = np.triu_indices(views.shape[1], 1)
  return jax.nn.logsumexp(scale * products(views, views)[:, left, right], axis=1)
