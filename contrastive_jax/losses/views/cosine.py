"""The cosine loss of BYOL and SimSiam, between a prediction and a target without gradient."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def cosine(prediction: jax.Array, target: jax.Array) -> jax.Array:
  """The squared distance of the unit vectors of predictions and targets [1, 2].

      D(p, v) = 2 − 2 meanᵢ cos(pᵢ, sg vᵢ)

  No gradient flows into v.

  Args:
    prediction: [B, D] vectors of any length.
    target: [B, D] vectors of any length, row i for row i of `prediction`.

  Returns:
    Scalar from 0 to 4.

  Raises:
    ValueError: if the shapes differ.

  References:
    [1] Grill et al., Bootstrap Your Own Latent, 2020, https://arxiv.org/abs/2006.07733.
    [2] Chen and He, Exploring Simple Siamese Representation Learning, 2021,
      https://arxiv.org/abs/2011.10566; its loss is D / 2 − 1.

  >>> float(cosine(jnp.eye(4), 3 * jnp.eye(4)))
  0.0
  """
  return jnp.mean(cosine_per_example(prediction, target))


def cosine_per_example(prediction: jax.Array, target: jax.Array) -> jax.Array:
  """The squared distance of each pair of unit vectors [B], of which `cosine` is the mean.

  >>> cosine_per_example(jnp.eye(2), -jnp.eye(2))
  Array([4., 4.], dtype=float32)
  """
  check_pairs(prediction=prediction, target=target)
  target = jax.lax.stop_gradient(target)
  squares = pairwise.paired(prediction, prediction), pairwise.paired(target, target)
  # The bound keeps the gradient of a zero row finite.
  inverse, inverse_target = (jax.lax.rsqrt(jnp.maximum(square, 1e-24)) for square in squares)
  return 2 - 2 * pairwise.paired(prediction, target) * inverse * inverse_target
