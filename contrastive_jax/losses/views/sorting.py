"""Differentiable sorting, by an odd-even network whose comparisons are relaxed."""

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.losses.views.features import wide


def soft_sort(values: jax.Array, *, steepness: float = 1.0) -> tuple[jax.Array, jax.Array]:
  """Values in soft ascending order, and the soft permutation that gives it [1, 2].

  In layer t of n, an odd-even network compares items (i, i + 1) with i ≡ t mod 2. The relaxation
  exchanges them in part, by the distribution function of a Cauchy distribution:

      min'(a, b) = α a + (1 − α) b,   max'(a, b) = (1 − α) a + α b
      α = ½ + arctan(steepness · (b − a)) / π

  Each layer is a doubly stochastic matrix, and so is their product, the permutation.

  Args:
    values: [..., n], floating.
    steepness: over 0; the higher, the closer to the hard order.

  Returns:
    [..., n] soft order, and [..., n, n] permutation, of rows per item and columns per rank:
    order[r] = Σᵢ values[i] permutation[i, r]. Both are float32 or wider, and take memory in n³,
    for the gradient.

  Raises:
    ValueError: if the steepness is not over 0.

  References:
    [1] Petersen et al., Monotonic Differentiable Sorting Networks, 2022,
      https://arxiv.org/abs/2203.09630; formulas as in Felix-Petersen/diffsort:
      diffsort/functional.py, execute_sort.
    [2] Petersen et al., Differentiable Sorting Networks for Scalable Sorting and Ranking
      Supervision, 2021, https://arxiv.org/abs/2105.04019.

  >>> order, permutation = soft_sort(jnp.array([2.0, 1.0]))
  >>> order.round(4)      # α = ½ − ¼
  Array([1.25, 1.75], dtype=float32)
  >>> permutation.round(4)
  Array([[0.25, 0.75],
         [0.75, 0.25]], dtype=float32)
  """
  if not steepness > 0:
    raise ValueError(f'steepness = {steepness}; use a number over 0')
  n = values.shape[-1]
  values = wide(values)
  identity = jnp.broadcast_to(jnp.eye(n, dtype=values.dtype), (*values.shape, n))

  def layer(carry, wires):
    order, permutation = carry
    other, sign = wires
    # What is compared with itself stays as it is.
    keep = 0.5 + jnp.arctan(steepness * sign * (order[..., other] - order)) / jnp.pi
    order = keep * order + (1 - keep) * order[..., other]
    kept = keep[..., None, :]
    return (order, kept * permutation + (1 - kept) * permutation[..., other]), None

  sorted_values, _ = jax.lax.scan(layer, (values, identity), _wires(n))
  return sorted_values


def _wires(n: int) -> tuple[np.ndarray, np.ndarray]:
  """Per layer and item [n, n]: its partner, and 1 where it is the lower of both, −1 elsewhere."""
  items = np.arange(n)
  upper = (items - np.arange(n)[:, None]) % 2 == 1
  sign = np.where(upper, -1, 1)
  other = items + sign
  return np.where((other < 0) | (other >= n), items, other), sign
