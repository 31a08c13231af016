"""Augmentation on the device, inside the step: one resampling and one colour map a picture.

The host is left with what every epoch repeats, decoding and resizing (experiments/augmentation).
Crops of large pictures stay there too, see `images`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

WHITE = 255.0
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# The greatest strengths that make sense.
_SHAPE = {'degrees': 180, 'shear': 80, 'translate': 1, 'zoom': 0.9, 'stretch': 0.9, 'flip': 1}
_COLOUR = {'brightness': 1, 'contrast': 1, 'saturation': 1, 'hue': 0.5, 'grey': 1}
_BOUNDS = _SHAPE | _COLOUR | {'erase': 1}
# Least and greatest side of what is erased, as a share of the picture's.
_ERASED = (0.15, 0.5)


def check_strengths(strengths: dict[str, float]) -> None:
  """Raises ValueError if a strength of `augment` is unknown or out of bounds."""
  for name, strength in strengths.items():
    if name not in _BOUNDS:
      raise ValueError(f'config.augmentation.{name} is unknown; use some of {sorted(_BOUNDS)}')
    if not 0 <= strength <= _BOUNDS[name]:
      raise ValueError(
        f'config.augmentation.{name} = {strength}; use a number from 0 to {_BOUNDS[name]}'
      )


def augment(
  keys: jax.Array, images: jax.Array, size: int, strengths: dict[str, float]
) -> jax.Array:
  """Draws a change of shape and a change of colour for each picture.

  Strengths are the greatest change either way, but for `flip`, `grey` and `erase`, which are
  probabilities; one left out is 0, and with none a picture of the size asked for stays as it is.

  - degrees, shear: turn and horizontal slant, in degrees.
  - translate: move, as a share of the side.
  - zoom, stretch: relative change of size, and of the width over the height.
  - flip: left to right.
  - brightness, contrast, saturation: of the factor on all channels, on the distance from mid-grey,
    and on the distance from luma.
  - hue: turn about the grey axis, as a share of a full one.
  - grey: no colour left.
  - erase: a box of one colour, of 15% to 50% of each side, hides what is below [1].

  Args:
    keys: [B] random keys, so that a picture's changes do not hang on its company.
    images: [B, H, H, 3] from 0 to 255. White is what lies outside.
    size: S, the side of the result. Pictures somewhat larger give sharper results.
    strengths: by name.

  Returns:
    [B, S, S, 3] float32 from 0 to 255.

  Raises:
    ValueError: if a strength is unknown or out of bounds.

  References:
    [1] Zhong et al., Random Erasing Data Augmentation, 2020.
  """
  check_strengths(strengths)
  images = images.astype(jnp.float32)
  shape_keys, colour_keys, erase_keys = jax.vmap(jax.random.split, (0, None), 1)(keys, 3)
  if images.shape[1] != size or any(map(strengths.get, _SHAPE)):
    images = _resample(images, size, *_draw_shape(shape_keys, strengths))
  if any(map(strengths.get, _COLOUR)):
    matrix, offset = _draw_colour(colour_keys, strengths)
    images = jnp.einsum('bhwc,bdc->bhwd', images, matrix) + offset[:, None, None, None]
    images = jnp.clip(images, 0, WHITE)
  if strengths.get('erase'):
    images = _erase(erase_keys, images, strengths['erase'])
  return images


def _draw_shape(keys, strengths):
  """Matrices [B, 2, 2] and moves [B, 2] from places in the result to places in the picture."""
  uniform = _uniform(keys, 8) * 2 - 1
  turn, slant, down, right, zoom, stretch = (
    strengths.get(name, 0.0) * uniform[i]
    for i, name in enumerate(('degrees', 'shear', 'translate', 'translate', 'zoom', 'stretch'))
  )
  turn, slant = jnp.deg2rad(turn), jnp.tan(jnp.deg2rad(slant))
  mirror = jnp.where(uniform[6] < 2 * strengths.get('flip', 0.0) - 1, -1.0, 1.0)
  width = mirror * (1 + zoom) * jnp.sqrt(1 + stretch)
  height = (1 + zoom) / jnp.sqrt(1 + stretch)
  cos, sin = jnp.cos(turn), jnp.sin(turn)
  rows = jnp.stack([cos * height, (slant * cos - sin) * width], -1)
  columns = jnp.stack([sin * height, (slant * sin + cos) * width], -1)
  return jnp.linalg.inv(jnp.stack([rows, columns], -2)), jnp.stack([down, right], -1)


def _resample(images, size, matrix, move):
  """Bilinear, about the centre: place p of the result shows place `matrix` p + `move`."""
  H = images.shape[1]
  grid = (jnp.arange(size) + 0.5) / size - 0.5
  places = jnp.stack(jnp.meshgrid(grid, grid, indexing='ij'))
  places = jnp.einsum('bij,jhw->bihw', matrix, places) + move[..., None, None]
  places = (places + 0.5) * H - 0.5

  def channel(picture, places):
    return map_coordinates(picture, list(places), order=1, cval=WHITE)

  channels = jax.vmap(channel, in_axes=(2, None), out_axes=2)
  return jax.vmap(channels)(images, places)


def _draw_colour(keys, strengths):
  """Matrices [B, 3, 3] and offsets [B], the same for all channels."""
  uniform = _uniform(keys, 5)[..., None, None] * 2 - 1
  light, spread, vivid = (
    1 + strengths.get(name, 0.0) * uniform[i]
    for i, name in enumerate(('brightness', 'contrast', 'saturation'))
  )
  vivid = jnp.where(uniform[3] < 2 * strengths.get('grey', 0.0) - 1, 0.0, vivid)
  angle = 2 * jnp.pi * strengths.get('hue', 0.0) * uniform[4]
  # Rodrigues' rotation about (1, 1, 1) / √3.
  cross = jnp.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / jnp.sqrt(3)
  turn = jnp.cos(angle) * jnp.eye(3) + (1 - jnp.cos(angle)) / 3 + jnp.sin(angle) * cross
  matrix = spread * light * (vivid * jnp.eye(3) + (1 - vivid) * _LUMA) @ turn
  return matrix, (1 - spread[:, 0, 0]) * WHITE / 2


def _erase(keys, images, probability):
  uniform = _uniform(keys, 8)
  least, most = _ERASED
  side, centre = least + (most - least) * uniform[:2, :, None], uniform[2:4, :, None]
  place = (jnp.arange(images.shape[1]) + 0.5) / images.shape[1]
  rows, columns = jnp.abs(place - centre) < side / 2
  erased = (uniform[4] < probability)[:, None, None] & rows[:, :, None] & columns[:, None, :]
  return jnp.where(erased[..., None], WHITE * uniform[5:].T[:, None, None], images)


def _uniform(keys, number):
  """Numbers [number, B] from 0 to 1."""
  return jax.vmap(lambda key: jax.random.uniform(key, number), out_axes=1)(keys)
