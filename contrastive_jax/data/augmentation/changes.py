"""Geometric, color and blur augmentations, each with its own random key per image.

A geometric map is a matrix [B, 2, 2] and an offset [B, 2]: pixel p of the result, a row and a
column relative to the center in units of the side, samples the image at matrix p + offset. Images
are [B, S, S, 3] from 0 to 255, keys [B].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

WHITE = 255.0
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Minimum and maximum side of the erased box, as a share of the image's.
_ERASED_SIDE = (0.15, 0.5)
# Minimum and maximum aspect, width over height, of a crop.
_ASPECT = (3 / 4, 4 / 3)
# Minimum and maximum standard deviation of a blur, and the radius of its kernel, in pixels.
_BLUR_STD, _BLUR_RADIUS = (0.1, 2.0), 6


def draw_shape(keys, strengths):
  """Draws rotation, shear, translation, zoom, stretch and flips, as one map."""
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


def draw_crop(keys, cut, least=0.0):
  """Draws a box that leaves out `least` to `cut` of the area, anywhere in the image."""
  numbers = uniform(keys, 4)
  area = 1 - least - (cut - least) * numbers[0]
  aspect = jnp.exp(jnp.log(_ASPECT[0]) + jnp.log(_ASPECT[1] / _ASPECT[0]) * numbers[1])
  aspect = jnp.clip(aspect, area, 1 / area)  # so that the box fits
  sides = jnp.sqrt(jnp.stack([area / aspect, area * aspect], -1))
  return sides[..., None] * jnp.eye(2), (numbers[2:].T - 0.5) * (1 - sides)


def compose(first, second):
  """The map that applies `first`, then `second`."""
  (first_matrix, first_move), (matrix, move) = first, second
  return first_matrix @ matrix, (first_matrix @ move[..., None])[..., 0] + first_move


def resample(images, size, matrix, move):
  """Samples images bilinearly at a map; pixels outside the image are white."""
  H = images.shape[1]
  grid = (jnp.arange(size) + 0.5) / size - 0.5
  points = jnp.stack(jnp.meshgrid(grid, grid, indexing='ij'))
  points = jnp.einsum('bij,jhw->bihw', matrix, points) + move[..., None, None]
  points = (points + 0.5) * H - 0.5

  def channel(image, points):
    return map_coordinates(image, list(points), order=1, cval=WHITE)

  channels = jax.vmap(channel, in_axes=(2, None), out_axes=2)
  return jax.vmap(channels)(images, points)


def color(keys, images, strengths):
  """Changes brightness, contrast, saturation, hue, and gray, by one affine map of the colors."""
  matrix, offset = _draw_color(keys, strengths)
  images = jnp.einsum('bhwc,bdc->bhwd', images, matrix) + offset[:, None, None, None]
  return jnp.clip(images, 0, WHITE)


def _draw_color(keys, strengths):
  """Draws matrices [B, 3, 3] and offsets [B], equal for all channels."""
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
  """Blurs by a Gaussian of random standard deviation; the border is mirrored."""
  numbers = uniform(keys, 2)
  std = _BLUR_STD[0] + (_BLUR_STD[1] - _BLUR_STD[0]) * numbers[0]
  kernel = jnp.exp(-((jnp.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1) / std[:, None]) ** 2) / 2)
  blurred = convolve(images, kernel / kernel.sum(1, keepdims=True))
  return jnp.where((numbers[1] < probability)[:, None, None, None], blurred, images)


def convolve(images, kernels):
  """Convolves images separably with odd kernels [B, N], or with one kernel [1, N] for all."""
  N = kernels.shape[1]
  for axis in (1, 2):
    border = [(N // 2,) * 2 if axis == a else (0, 0) for a in range(4)]
    # Symmetric padding keeps the mean.
    padded = jnp.pad(images, border, mode='symmetric')
    images = sum(
      kernels[:, n, None, None, None]
      * jax.lax.slice_in_dim(padded, n, n + images.shape[axis], axis=axis)
      for n in range(N)
    )
  return images


def erase(keys, images, probability):
  """Erases a box at a random position with a random color."""
  numbers = uniform(keys, 8)
  low, high = _ERASED_SIDE
  side, center = low + (high - low) * numbers[:2, :, None], numbers[2:4, :, None]
  point = (jnp.arange(images.shape[1]) + 0.5) / images.shape[1]
  rows, columns = jnp.abs(point - center) < side / 2
  erased = (numbers[4] < probability)[:, None, None] & rows[:, :, None] & columns[:, None, :]
  return jnp.where(erased[..., None], WHITE * numbers[5:].T[:, None, None], images)


def uniform(keys, number):
  """Draws [number, B] uniform numbers from 0 to 1."""
  return jax.vmap(lambda key: jax.random.uniform(key, number), out_axes=1)(keys)
