"""RandAugment and AugMix on a batch, with operations as PIL defines them.

Each image draws its own operations. A vectorized batch computes every operation and selects, so the
geometric operations of a chain are merged into one resampling, which comes first. This order
changes little but the fill of the corners.
"""

import functools

import jax
import jax.numpy as jnp

from contrastive_jax.data.augmentation.changes import LUMA, WHITE, compose, convolve, resample

# Color operations, then geometric ones. AugMix uses the last nine: the others resemble its test
# corruptions.
OPERATIONS = (
  'identity',
  'brightness',
  'saturation',
  'contrast',
  'sharpness',
  'posterize',
  'solarize',
  'autocontrast',
  'equalize',
  'rotate',
  'shear_x',
  'shear_y',
  'translate_x',
  'translate_y',
)
_FIRST_GEOMETRIC = OPERATIONS.index('rotate')
_FIRST_OF_AUG_MIX = OPERATIONS.index('posterize')
# Strengths at level 1: rotation in degrees, shear, translation as a share of the side, change of a
# blending factor, bits removed.
_DEGREES, _SHEAR, _TRANSLATION, _FACTOR, _BITS = 30, 0.3, 0.45, 0.9, 4
_CHAINS, _DEPTH = 3, 3


def rand_augment(keys: jax.Array, images: jax.Array, level: float) -> jax.Array:
  """Applies two of the fourteen operations, at a level of random sign [1].

  Args:
    keys: [B].
    images: [B, S, S, 3] from 0 to 255.
    level: strength of each operation, as a share of its maximum.

  Returns:
    [B, S, S, 3] integers from 0 to 255, as floats.

  References:
    [1] Cubuk et al., RandAugment, 2020.
  """

  def draw(key):
    kinds, signs = jax.random.split(key)
    operations = jax.random.randint(kinds, (2,), 0, len(OPERATIONS))
    return operations, level * jax.random.rademacher(signs, (2,), jnp.float32)

  return operate(images, *jax.vmap(draw)(keys))


def aug_mix(keys: jax.Array, images: jax.Array, level: float) -> jax.Array:
  """Mixes an image with three random chains of one to three operations [1].

  Args:
    keys: [B].
    images: [B, S, S, 3] from 0 to 255.
    level: maximum strength drawn, as a share of the maximum of each operation.

  Returns:
    [B, S, S, 3] from 0 to 255.

  References:
    [1] Hendrycks et al., AugMix, 2020.
  """

  def draw(key):
    kinds, depths, levels, weights, share = jax.random.split(key, 5)
    shape = (_CHAINS, _DEPTH)
    operations = jax.random.randint(kinds, shape, _FIRST_OF_AUG_MIX, len(OPERATIONS))
    depth = jax.random.randint(depths, (_CHAINS, 1), 1, _DEPTH + 1)
    operations = jnp.where(jnp.arange(_DEPTH) < depth, operations, 0)
    # Dirichlet(1, 1, 1) and Beta(1, 1).
    weights = jax.random.exponential(weights, (_CHAINS,))
    weights *= jax.random.uniform(share) / weights.sum()
    return operations, jax.random.uniform(levels, shape, minval=-level, maxval=level), weights

  operations, levels, weights = jax.vmap(draw)(keys)

  def step(mixed, chain):
    operations, levels, weights = chain
    return mixed + weights[:, None, None, None] * operate(images, operations, levels), None

  chains = jax.tree.map(lambda drawn: drawn.swapaxes(0, 1), (operations, levels, weights))
  own = (1 - weights.sum(1))[:, None, None, None]
  return jax.lax.scan(step, own * images, chains)[0]


def operate(images: jax.Array, operations: jax.Array, levels: jax.Array) -> jax.Array:
  """Applies a chain of operations to each image.

  Args:
    images: [B, S, S, 3] from 0 to 255.
    operations: [B, N] indices in `OPERATIONS`.
    levels: [B, N] from -1 to 1.

  Returns:
    [B, S, S, 3] integers from 0 to 255, as floats.
  """
  moves = [_move(operations[:, n], levels[:, n]) for n in range(operations.shape[1])]
  images = images.astype(jnp.float32)
  images = jnp.round(resample(images, images.shape[1], *functools.reduce(compose, moves)))
  change = jax.vmap(lambda operation, *inputs: jax.lax.switch(operation, _PIXELS, *inputs))

  def step(images, drawn):
    return jnp.clip(jnp.round(change(*drawn, images)), 0, WHITE), None

  pixels = jnp.where(operations < _FIRST_GEOMETRIC, operations, 0)  # geometric ones: identity
  return jax.lax.scan(step, images, (pixels.T, levels.T))[0]


def _move(operations, levels):
  """The map of geometric operations, for `resample`; the identity for the others."""
  rotate, shear_x, shear_y, translate_x, translate_y = (
    jnp.where(operations == index, levels, 0.0)
    for index in range(_FIRST_GEOMETRIC, len(OPERATIONS))
  )
  turn = jnp.deg2rad(_DEGREES * rotate)
  # Only one operation is drawn, so the sum equals the product of the matrices.
  matrix = [
    [jnp.cos(turn), _SHEAR * shear_y + jnp.sin(turn)],
    [_SHEAR * shear_x - jnp.sin(turn), jnp.cos(turn)],
  ]
  matrix = jnp.stack([jnp.stack(row, -1) for row in matrix], -2)
  return matrix, _TRANSLATION * jnp.stack([translate_y, translate_x], -1)


# Color operations: (level, image [S, S, 3] of integers) -> image, to be rounded and clipped.


def _identity(level, image):
  return image


def _blend(other):
  """PIL's ImageEnhance: blends the image with `other(image)`, or extrapolates away from it."""

  def change(level, image):
    plain = other(image)
    return plain + (1 + _FACTOR * level) * (image - plain)

  return change


def _luma(image):
  return jnp.round(image @ LUMA)[..., None]


def _smooth(image):
  """PIL's SMOOTH filter; the border is unchanged."""
  box = convolve(image[None], jnp.ones((1, 3)))[0]
  inner = ((box + 4 * image) / 13)[1:-1, 1:-1]
  return image.at[1:-1, 1:-1].set(jnp.round(inner))


def _posterize(level, image):
  step = 2.0 ** jnp.round(_BITS * jnp.abs(level))
  return jnp.floor(image / step) * step


def _solarize(level, image):
  return jnp.where(image < 256 * (1 - jnp.abs(level)), image, WHITE - image)


def _autocontrast(level, image):
  low, high = image.min((0, 1)), image.max((0, 1))
  scaled = jnp.floor((image - low) * WHITE / jnp.maximum(high - low, 1))
  return jnp.where(high > low, scaled, image)


def _equalize(level, image):
  def channel(values):
    counts = jnp.zeros(256, jnp.int32).at[values].add(1)
    step = (values.size - counts[values.max()]) // 255
    table = (jnp.cumsum(counts) - counts + step // 2) // jnp.maximum(step, 1)
    return jnp.where(step > 0, table[values], values)

  return jax.vmap(channel, 2, 2)(image.astype(jnp.int32)).astype(jnp.float32)


_PIXELS = (
  _identity,
  _blend(jnp.zeros_like),
  _blend(_luma),
  _blend(lambda image: jnp.round(_luma(image).mean())),
  _blend(_smooth),
  _posterize,
  _solarize,
  _autocontrast,
  _equalize,
)
