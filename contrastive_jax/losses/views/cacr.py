"""CACR: contrastive attraction of far positives, and contrastive repulsion of near negatives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_views
from contrastive_jax.losses.views.multi_view import by_view, products


def cacr(
  views: jax.Array,
  *,
  alpha: float = 1.0,
  beta: float = 1.0,
  tau_pos: float = 1.0,
  tau_neg: float = 0.9,
  tau_plus: float = 0.0,
  stop_weights: bool = False,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Contrastive attraction and contrastive repulsion of several views, CACR [1].

      L = meanᵢ( α mean_l Σ_{m ≠ l} w⁺ₗₘ dₗₘ − β mean_{l < m} Σ_{j ≠ i} w⁻ⱼ ‖z_il − z_jm‖² )
      w⁺ₗ = softmax_{m ≠ l}( τ⁺ dₗₘ ),   dₗₘ = ‖z_il − z_im‖²
      w⁻ = softmax_{j ≠ i}( −τ⁻ ‖z_il − z_jm‖² )

  Of the positives of an anchor, far ones weigh more, and of its negatives, near ones do. Squared
  distances are those of unit vectors, 2 − 2 ⟨x, y⟩.

  In the debiased form a negative is a positive with probability τ₊: the repulsion R of a pair of
  views becomes (R − τ₊ dₗₘ) / (1 − τ₊).

  Args:
    views: [B, V, D] unit vectors of at least two views of each example; 4 views in [1].
    alpha: α, the weight of the attraction.
    beta: β, the weight of the repulsion.
    tau_pos: τ⁺, at least 0; 0 for equal weights. It has no effect on two views.
    tau_neg: τ⁻, over 0; [1] has 0.9 for CIFAR-10 and 2 for CIFAR-100 and STL-10.
    tau_plus: τ₊, in [0, 1); 0.1 in the authors' code, where it is used. 0 for no correction.
    stop_weights: let no gradient flow through w⁺ and w⁻, as in the authors' code for ImageNet; it
      does in that for small images.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, from −4β to 4α where `tau_plus` is 0.

  Raises:
    ValueError: if the shape is another, B is 1: one example has no negatives, a number is out of
      range, or as `pairwise.logsumexp`.

  References:
    [1] Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation Learning,
      2021, https://arxiv.org/abs/2105.03746; as in JegZheng/CACR-SSL:
      small_scale_experiments/losses/__init__.py.

  >>> views = jnp.stack([jnp.eye(4)] * 3, 1)
  >>> float(cacr(views))      # no attraction, and all negatives at a squared distance of 2
  -2.0
  """
  options: dict[str, Any] = {'alpha': alpha, 'beta': beta, 'tau_pos': tau_pos, 'tau_neg': tau_neg}
  options |= {'tau_plus': tau_plus, 'stop_weights': stop_weights}
  return jnp.mean(cacr_per_example(views, block_size=block_size, mesh=mesh, **options))


def cacr_per_example(
  views: jax.Array,
  *,
  alpha: float = 1.0,
  beta: float = 1.0,
  tau_pos: float = 1.0,
  tau_neg: float = 0.9,
  tau_plus: float = 0.0,
  stop_weights: bool = False,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each example [B], of which `cacr` is the mean; it takes the same arguments.

  >>> cacr_per_example(jnp.stack([jnp.eye(2)] * 2, 1))
  Array([-2., -2.], dtype=float32)
  """
  check_views(views)
  if len(views) < 2:
    raise ValueError(f'views {views.shape} has one example, and no negatives; give 2 or more')
  if not (tau_pos >= 0 and tau_neg > 0 and 0 <= tau_plus < 1):
    raise ValueError(
      f'tau_pos = {tau_pos}, tau_neg = {tau_neg} and tau_plus = {tau_plus}; use 0 or more, a '
      'number over 0, and one in [0, 1)'
    )
  squares = 2 - 2 * products(views, views)
  weights = jnp.where(jnp.eye(views.shape[1], dtype=bool), -jnp.inf, tau_pos * squares)
  weights = jax.nn.softmax(jax.lax.stop_gradient(weights) if stop_weights else weights)
  attraction = jnp.mean(jnp.sum(weights * squares, axis=2), axis=1)

  # The weights are softmax(2 τ⁻ ⟨x, y⟩): constants cancel.
  left, right = np.triu_indices(views.shape[1], 1)
  logits = jax.lax.stop_gradient if stop_weights else None
  options: dict[str, Any] = {'diagonal': False, 'block_size': block_size, 'mesh': mesh}
  options |= {'scale': 2 * tau_neg, 'groups': len(left)}
  pairs = by_view(views, left), by_view(views, right)
  (scores, _), _ = pairwise.expectation(*pairs, _scores, logits, **options)
  distances = 2 - jnp.mean(scores.reshape(len(left), -1), axis=0) / tau_neg
  own = jnp.mean(squares[:, left, right], axis=1)
  repulsion = (-beta * distances - tau_plus * own) / (1 - tau_plus)
  return alpha * attraction + repulsion


def _scores(scores):
  return scores
