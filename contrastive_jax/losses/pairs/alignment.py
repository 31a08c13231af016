"""How near positives are."""

import jax
import jax.numpy as jnp


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
      Uniformity on the Hypersphere, 2020.

  >>> eye = jnp.eye(4)
  >>> float(alignment(eye, eye[::-1]))
  2.0
  """
  if image.shape != text.shape:
    raise ValueError(f'image {image.shape} and text {text.shape} differ; give two [B, D]')
  difference = image.astype(jnp.float32) - text.astype(jnp.float32)
  return jnp.mean(jnp.sum(jnp.square(difference), axis=-1))
