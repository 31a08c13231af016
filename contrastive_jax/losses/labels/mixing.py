"""Mixtures of examples of two classes, in class-balanced batches."""

import jax
import jax.numpy as jnp


def draw_partners(key: jax.Array, classes: int, examples: int) -> jax.Array:
  """A random partner of another class for each row of a class-balanced batch.

  Args:
    key: draws the partners.
    classes: m, at least 2.
    examples: k, the consecutive rows of each class.

  Returns:
    [m k] rows, a permutation. The rows of a class share the class of their partners.

  >>> partners = draw_partners(jax.random.key(0), 3, 2)
  >>> bool(jnp.all(partners // 2 != jnp.arange(6) // 2))
  True
  """
  of_class, of_example = jax.random.split(key)
  rows = jnp.arange(classes * examples).reshape(classes, examples)
  rows = jnp.roll(rows, jax.random.randint(of_class, (), 1, classes), 0)
  return jnp.roll(rows, jax.random.randint(of_example, (), 0, examples), 1).ravel()


def mix(x: jax.Array, partner: jax.Array, share: jax.Array) -> jax.Array:
  """λ x + (1 − λ) x_π, row by row.

  Args:
    x: [B, …] images, features or embeddings.
    partner: [B] rows, π.
    share: [B], λ.

  >>> mix(jnp.array([0.0, 4.0]), jnp.array([1, 0]), jnp.array([0.75, 0.75]))
  Array([1., 3.], dtype=float32)
  """
  share = share.reshape(-1, *(1,) * (x.ndim - 1))
  return share * x + (1 - share) * x[partner]
