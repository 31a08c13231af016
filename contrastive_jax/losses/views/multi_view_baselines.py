"""Losses of several views that MV-InfoNCE and MV-DHEL are compared with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_views
from contrastive_jax.losses.views.features import wide
from contrastive_jax.losses.views.multi_view import by_view, products
from contrastive_jax.losses.views.nt_xent import two_views

MEANS = ('geometric', 'arithmetic')


def pairwise_nt_xent(
  views: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The mean of `nt_xent` over all pairs of views, PWE in [1].

  Args:
    views: [B, V, D] unit vectors of at least two views of each example.
    scale: scalar, the inverse temperature.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shape is another, or as `pairwise.logsumexp`.

  References:
    [1] Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025,
      https://arxiv.org/abs/2507.06979; as in pakoromilas/Multi-View-CL: models/losses.py.

  >>> views = jnp.stack([jnp.eye(4)] * 3, 1)
  >>> round(float(pairwise_nt_xent(views, scale=1.0)), 4)      # log(e + 2 · 3) − 1
  1.1654
  """
  check_views(views)
  left, right = np.triu_indices(views.shape[1], 1)
  options: dict[str, Any] = {'scale': scale, 'block_size': block_size, 'mesh': mesh}
  return _nt_xent_in_groups(by_view(views, left), by_view(views, right), len(left), **options)


def averaged_nt_xent(
  views: jax.Array,
  *,
  scale: jax.Array | float,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The mean of `nt_xent` between each view and the average of the others [1].

  The average is not normalized, so that examples whose views differ have a shorter one.

  Args:
    views: [B, V, D] unit vectors of at least two views of each example.
    scale: scalar, the inverse temperature.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shape is another, or as `pairwise.logsumexp`.

  References:
    [1] Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025,
      https://arxiv.org/abs/2507.06979; as in pakoromilas/Multi-View-CL: models/losses.py.

  >>> views = jnp.stack([jnp.eye(4)] * 3, 1)
  >>> round(float(averaged_nt_xent(views, scale=1.0)), 4)      # log(e + 2 · 3) − 1
  1.1654
  """
  check_views(views)
  views = wide(views)
  others = (jnp.sum(views, axis=1, keepdims=True) - views) / (views.shape[1] - 1)
  options: dict[str, Any] = {'scale': scale, 'block_size': block_size, 'mesh': mesh}
  return _nt_xent_in_groups(by_view(views), by_view(others), views.shape[1], **options)


def poly_view(
  views: jax.Array,
  *,
  scale: jax.Array | float,
  mean: str = 'geometric',
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The poly-view contrastive loss [1], whose negatives are all views of other examples.

      p_lm = exp(⟨z_il, z_im⟩ s) / ( exp(⟨z_il, z_im⟩ s) + Σ_{j ≠ i} Σ_n exp(⟨z_il, z_jn⟩ s) )
      L = −meanᵢₗ mean_{m ≠ l} log p_lm         geometric
      L = −meanᵢₗ log mean_{m ≠ l} p_lm         arithmetic, at most the geometric one

  With two views both are `nt_xent`.

  Args:
    views: [B, V, D] unit vectors of at least two views of each example.
    scale: scalar s, the inverse temperature.
    mean: of the probabilities of an anchor's positives, 'geometric' or 'arithmetic'. The public
      code of the latter is not that of [1]: it sums losses in place of probabilities.
    block_size: as in `pairwise.logsumexp`, of B V vectors.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats; 0 for B = 1.

  Raises:
    ValueError: if the shape or the mean is another, or as `pairwise.logsumexp`.

  References:
    [1] Shidani et al., Poly-View Contrastive Learning, 2024, https://arxiv.org/abs/2403.05490; the
      geometric form as in pakoromilas/Multi-View-CL: models/losses.py, PVCLoss.

  >>> views = jnp.stack([jnp.eye(4)] * 3, 1)
  >>> round(float(poly_view(views, scale=1.0)), 4)      # log(e + 3 · 3) − 1
  1.4612
  """
  check_views(views)
  if mean not in MEANS:
    raise ValueError(f'mean = {mean!r}; use one of {MEANS}')
  B, V, _ = views.shape
  vectors, example = views.reshape(B * V, -1), jnp.repeat(jnp.arange(B), V)
  options: dict[str, Any] = {'exclude': example, 'diagonal': False, 'mesh': mesh}
  rest, _ = pairwise.logsumexp(vectors, vectors, scale=scale, block_size=block_size, **options)
  losses = jax.nn.softplus(rest.reshape(B, V, 1) - scale * products(views, views))
  others = ~jnp.eye(V, dtype=bool)
  if mean == 'geometric':
    return jnp.mean(losses, where=others)
  probability = jax.nn.logsumexp(-losses, axis=2, where=others)
  return np.log(V - 1) - jnp.mean(probability)


def _nt_xent_in_groups(first, second, groups, *, scale, **options):
  """The mean of `nt_xent` over groups of consecutive pairs."""
  rows, columns = two_views(first, second, scale=scale, diagonal=True, groups=groups, **options)
  return jnp.mean((rows + columns) / 2 - scale * pairwise.paired(first, second))
