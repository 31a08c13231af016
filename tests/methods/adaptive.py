"""What the tests of AMCL share: features of views, heads, and their float64 vectors."""

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.methods.method import Result, Sizes

B, D, C = 4, 6, 2
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(2, B, D)).astype('f')
KERNEL = RNG.normal(size=(D, D)).astype('f')
OPTIONS = {'projectors': C, 'outputs': D, 'beta': 0.01, 'bounds': (0.1, 1.5)}
SIZES = Sizes(batch=B, embed=D, image_features=D, views=2)


def phi(z):
  return 3 * jnp.sin(z @ KERNEL)


def project(n, features, encoder=''):
  """By feature number of a projector, and by encoder."""
  return jnp.roll(features, n, -1) + n * (1 + bool(encoder))


HEADS = {'temperature': phi} | {
  f'{encoder}projector_{n}': lambda x, n=n, encoder=encoder: project(n, x, encoder)
  for encoder in ('', 'target.')
  for n in range(C)
}


def step(method, inputs, memory=()):
  """The compiled loss, with its writes and metrics."""

  @jax.jit
  def loss(inputs):
    value, *others = method.loss(inputs, HEADS, memory, None)
    return value, *map(dict, others)

  return Result(*loss(inputs))


def embed(*rows):
  """Unit vectors and their φ, in float64."""
  rows = np.float64(np.concatenate(rows))
  z = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  return z, 3 * np.sin(z @ np.float64(KERNEL))
