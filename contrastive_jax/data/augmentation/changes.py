"""Changes of shape, colour and sharpness, each drawn from its own keys for every picture.

A shape is a matrix [B, 2, 2] and a move [B, 2]: place p of the result, a row and a column counted
from the centre in sides, shows place matrix p + move of the picture. Images are [B, S, S, 3] from 0
to 255, keys [B].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

WHITE = 255.0
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Least and greatest side of what is erased, as a share of the picture's.
_ERASED = (0.15, 0.5)
# Least and greatest width of a crop over its height.
_ASPECT = (3 / 4, 4 / 3)
# Least and greatest deviation of a blur, and where it ends, in pixels.
_DEVIATION, _REACH = (0.1, 2.0), 6


def draw_shape(keys, strengths):
  """Turns, slants, moves, zooms, stretches and mirrors."""
  numbers = uniform(keys, 8) * 2 - 1
  turn, slant, down, right, zoom, stretch = (
    strengths.get(name, 0.0) * numbers[i]
    for i, name in enumerate(('degrees', 'shear', 'translate', 'translate', 'zoom', 'stretch'))
  )
  turn, slant = jnp.deg2rad(turn), jnp.tan(jnp.deg2rad(slant))
  mirror, overturn = (
    jnp.where(numbers[i] < 2 * strengths.get(name, 0.0) - 1, -1.0, 1.0)
    for i, name in ((6, 'flip'), (7, 'flip_vertical'))
  )
  width = mirror * (1 + zoom) * jnp.sqrt(1 + stretch)
  height = overturn * (1 + zoom) / jnp.sqrt(1 + stretch)
  cos, sin = jnp.cos(turn), jnp.sin(turn)
  rows = jnp.stack([cos * height, (slant * cos - sin) * width], -1)
  columns = jnp.stack([sin * height, (slant * sin + cos) * width], -1)
  return jnp.linalg.inv(jnp.stack([rows, columns], -2)), jnp.stack([down, right], -1)


def draw_crop(keys, cut):
  """A box of at least 1 - `cut` of the area, somewhere in the picture."""
  numbers = uniform(keys, 4)
  area = 1 - cut * numbers[0]
  aspect = jnp.exp(jnp.log(_ASPECT[0]) + jnp.log(_ASPECT[1] / _ASPECT[0]) * numbers[1])
  aspect = jnp.clip(aspect, area, 1 / area)  # or it would not fit
  sides = jnp.sqrt(jnp.stack([area / aspect, area * aspect], -1))
  return sides[..., None] * jnp.eye(2), (numbers[2:].T - 0.5) * (1 - sides)


def compose(first, second):
  """The shape of a picture that takes the first and then the second."""
  (first_matrix, first_move), (matrix, move) = first, second
  return first_matrix @ matrix, (first_matrix @ move[..., None])[..., 0] + first_move


def resample(images, size, matrix, move):
  """Bilinear; what lies outside is white."""
  H = images.shape[1]
  grid = (jnp.arange(size) + 0.5) / size - 0.5
  places = jnp.stack(jnp.meshgrid(grid, grid, indexing='ij'))
  places = jnp.einsum('bij,jhw->bihw', matrix, places) + move[..., None, None]
  places = (places + 0.5) * H - 0.5

  def channel(picture, places):
    return map_coordinates(picture, list(places), order=1, cval=WHITE)

  channels = jax.vmap(channel, in_axes=(2, None), out_axes=2)
  return jax.vmap(channels)(images, places)


def colour(keys, images, strengths):
  """Brightness, contrast, saturation, hue and grey, one map of the colours."""
  matrix, offset = _draw_colour(keys, strengths)
  images = jnp.einsum('bhwc,bdc->bhwd', images, matrix) + offset[:, None, None, None]
  return jnp.clip(images, 0, WHITE)


def _draw_colour(keys, strengths):
  """Matrices [B, 3, 3] and offsets [B], the same for all channels."""
  numbers = uniform(keys, 5)[..., None, None] * 2 - 1
  light, spread, vivid = (
    1 + strengths.get(name, 0.0) * numbers[i]
    for i, name in enumerate(('brightness', 'contrast', 'saturation'))
  )
  vivid = jnp.where(numbers[3] < 2 * strengths.get('grey', 0.0) - 1, 0.0, vivid)
  angle = 2 * jnp.pi * strengths.get('hue', 0.0) * numbers[4]
  # Rodrigues' rotation about (1, 1, 1) / √3.
  cross = jnp.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / jnp.sqrt(3)
  turn = jnp.cos(angle) * jnp.eye(3) + (1 - jnp.cos(angle)) / 3 + jnp.sin(angle) * cross
  matrix = spread * light * (vivid * jnp.eye(3) + (1 - vivid) * LUMA) @ turn
  return matrix, (1 - spread[:, 0, 0]) * WHITE / 2


def blur(keys, images, probability):
  """Gaussian, of a deviation drawn; what lies outside mirrors what lies inside."""
  numbers = uniform(keys, 2)
  deviation = _DEVIATION[0] + (_DEVIATION[1] - _DEVIATION[0]) * numbers[0]
  kernel = jnp.exp(-((jnp.arange(-_REACH, _REACH + 1) / deviation[:, None]) ** 2) / 2)
  blurred = convolve(images, kernel / kernel.sum(1, keepdims=True))
  return jnp.where((numbers[1] < probability)[:, None, None, None], blurred, images)


def convolve(images, kernels):
  """Each picture with its own odd kernel [B, N], or all with one [1, N], along both sides."""
  N = kernels.shape[1]
  for axis in (1, 2):
    border = [(N // 2,) * 2 if axis == a else (0, 0) for a in range(4)]
    # Symmetric, which keeps the mean.
    padded = jnp.pad(images, border, mode='symmetric')
    images = sum(
      kernels[:, n, None, None, None]
      * jax.lax.slice_in_dim(padded, n, n + images.shape[axis], axis=axis)
      for n in range(N)
    )
  return images


def erase(keys, images, probability):
  """A box of one colour at a random place."""
  numbers = uniform(keys, 8)
  least, most = _ERASED
  side, centre = least + (most - least) * numbers[:2, :, None], numbers[2:4, :, None]
  place = (jnp.arange(images.shape[1]) + 0.5) / images.shape[1]
  rows, columns = jnp.abs(place - centre) < side / 2
  erased = (numbers[4] < probability)[:, None, None] & rows[:, :, None] & columns[:, None, :]
  return jnp.where(erased[..., None], WHITE * numbers[5:].T[:, None, None], images)


def uniform(keys, number):
  """Numbers [number, B] from 0 to 1."""
  return jax.vmap(lambda key: jax.random.uniform(key, number), out_axes=1)(keys)
