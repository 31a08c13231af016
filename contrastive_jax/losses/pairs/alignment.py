"""The distance between positives."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses.checks import check_pairs


def alignment(image: jax.Array, text: jax.Array) -> jax.Array:
  """The mean squared distance of positives [1].

      L = meanᵢ ‖ imageᵢ − textᵢ ‖²

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.

  Returns:
    Scalar, from 0 to 4.

  Raises:
    ValueError: if the shapes differ.

  References:
    [1] Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
      Uniformity on the Hypersphere, 2020, https://arxiv.org/abs/2005.10242.

  See also `uniformity`.

  >>> eye = jnp.eye(4)
  >>> float(alignment(eye, eye[::-1]))
  2.0
  """
  return jnp.mean(alignment_per_example(image, text))


def alignment_per_example(image: jax.Array, text: jax.Array) -> jax.Array:
  """The squared distance of each positive [B], of which `alignment` is the mean.

  >>> eye = jnp.eye(2)
  >>> alignment_per_example(eye, eye[::-1])
  Array([2., 2.], dtype=float32)
  """
  check_pairs(image=image, text=text)
  difference = image.astype(jnp.float32) - text.astype(jnp.float32)
  return jnp.sum(jnp.square(difference), axis=-1)
