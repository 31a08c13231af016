"""Augmentation by the strengths in a config.

Augmenting inside the train step leaves decoding and resizing to the host
(experiments/augmentation). Random crops of large images stay on the host too, see `images`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.data.augmentation import changes, policies
from contrastive_jax.data.patches import Patches

# Maximum strengths.
_GEOMETRY = {
  'degrees': 180,
  'shear': 80,
  'translate': 1,
  'zoom': 0.9,
  'stretch': 0.9,
  'flip': 1,
  'flip_vertical': 1,
  'crop': 0.99,
  'crop_min': 0.99,
}
_COLOR = {'brightness': 1, 'contrast': 1, 'saturation': 1, 'hue': 0.5, 'grey': 1}
# Names of strengths that change colors alone.
COLORS = tuple(_COLOR)
# Names of strengths whose results are no boxes of the image, as they turn or shear it.
NO_BOX = ('degrees', 'shear', 'rand_augment', 'aug_mix')
_BOUNDS = _GEOMETRY | {'rand_augment': 1, 'aug_mix': 1} | _COLOR | {'blur': 1, 'erase': 1}


def check_strengths(strengths: dict[str, float], field: str = 'augmentation') -> None:
  """Raises ValueError if a strength of `augment` is unknown or out of bounds."""
  for name, strength in strengths.items():
    if name not in _BOUNDS:
      raise ValueError(f'config.{field}.{name} is unknown; use some of {sorted(_BOUNDS)}')
    if not 0 <= strength <= _BOUNDS[name]:
      raise ValueError(
        f'config.{field}.{name} = {strength}; use a number from 0 to {_BOUNDS[name]}'
      )
  least, most = (strengths.get(name, 0) for name in ('crop_min', 'crop'))
  if least > most:
    raise ValueError(
      f'config.{field}.crop_min = {least} is above config.{field}.crop = {most}; use less, or more '
      'crop'
    )


# Coordinates and colors need full float32 precision, which is not the default on accelerators.
@jax.default_matmul_precision('highest')
def augment(
  keys: jax.Array, images: jax.Array, size: int, strengths: dict[str, float]
) -> jax.Array:
  """Augments each image at random, in the order of the names below.

  A strength is the maximum change in either direction; for `flip`, `flip_vertical`, `grey`, `blur`
  and `erase` it is a probability. Omitted strengths are 0 and cost nothing. Without any, an image
  of the right size is returned unchanged.

  One bilinear resampling applies the first nine:

  - degrees, shear: rotation and horizontal shear, in degrees.
  - translate: translation, as a share of the side.
  - zoom, stretch: relative change of the size, and of the aspect.
  - flip, flip_vertical: left to right, top to bottom.
  - crop, crop_min: max and min share of the area that a random box, of aspect 3/4 to 4/3, leaves
    out; 0.95 and 0.6 are DINO's local views, 0.6 and 0 its global ones [3].

  Then policies of several operations, see `policies`:

  - rand_augment: level of two of fourteen operations; 0.3 is the paper's 9 of 30.
  - aug_mix: maximum level of three chains, mixed with the image; 0.3 is severity 3 of 10.

  Then one affine map of the colors:

  - brightness, contrast, saturation: change of the factor on all channels, on the distance from
    mid-gray, and on the distance from luma.
  - hue: rotation about the gray axis, as a share of a full turn.
  - grey: conversion to grayscale.

  Then:

  - blur: Gaussian, of standard deviation 0.1 to 2 pixels, SimCLR's for 224 [1].
  - erase: a box of 15% to 50% of each side, filled with one color [2].

  Args:
    keys: [B] random keys, one per image, so that the result is independent of the batch.
    images: [B, H, H, 3] from 0 to 255. Pixels outside the image are white.
    size: S, the side of the result. Somewhat larger images give sharper results, with `crop` up to
      1 / √(1 - crop) times; far larger ones alias, as the resampling is not antialiased.
    strengths: strength by name.

  Returns:
    [B, S, S, 3] float32 from 0 to 255.

  Raises:
    ValueError: if a strength is unknown or out of bounds.

  References:
    [1] Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020.
    [2] Zhong et al., Random Erasing Data Augmentation, 2020.
    [3] Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021.
  """
  check_strengths(strengths)
  images = images.astype(jnp.float32)
  shape_keys, color_keys, erase_keys = jax.vmap(jax.random.split, (0, None), 1)(keys, 3)
  # Further keys are folded in, so that the three of the split stay the same.
  crop_keys, rand_keys, mix_keys, blur_keys = (
    jax.vmap(jax.random.fold_in, (0, None))(keys, number) for number in range(3, 7)
  )
  if images.shape[1] != size or any(map(strengths.get, _GEOMETRY)):
    images = changes.resample(images, size, *_draw_map(shape_keys, crop_keys, strengths))
  if level := strengths.get('rand_augment'):
    images = policies.rand_augment(rand_keys, images, level)
  if level := strengths.get('aug_mix'):
    images = policies.aug_mix(mix_keys, images, level)
  if any(map(strengths.get, _COLOR)):
    images = changes.color(color_keys, images, strengths)
  if probability := strengths.get('blur'):
    images = changes.blur(blur_keys, images, probability)
  if probability := strengths.get('erase'):
    images = changes.erase(erase_keys, images, probability)
  return images


def _draw_map(shape_keys: jax.Array, crop_keys: jax.Array, strengths: dict[str, float]):
  """Draws the geometric map of `augment`, see `changes`."""
  shape = changes.draw_shape(shape_keys, strengths)
  if crop := strengths.get('crop'):
    least = strengths.get('crop_min', 0.0)
    shape = changes.compose(shape, changes.draw_crop(crop_keys, crop, least))
  return shape


@jax.default_matmul_precision('highest')
def boxes(keys: jax.Array, strengths: dict[str, float]) -> jax.Array:
  """Where the images that `augment` makes with the same keys lie in the images given.

  Args:
    keys: [B].
    strengths: as for `augment`, without `NO_BOX`.

  Returns:
    [B, 4] edges (x₀, y₀, x₁, y₁), where the image is from 0 to 1. x₁ < x₀ if it is flipped left to
    right, and y₁ < y₀ if top to bottom. With translation and zoom a box may leave the image.

  Raises:
    ValueError: if a strength makes other shapes than boxes.
  """
  check_strengths(strengths)
  check_boxes(strengths)
  shape_keys = jax.vmap(jax.random.split, (0, None), 1)(keys, 3)[0]
  crop_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 3)
  matrix, move = _draw_map(shape_keys, crop_keys, strengths)
  center, half = 0.5 + move, jnp.diagonal(matrix, axis1=1, axis2=2) / 2
  return jnp.concatenate([(center - half)[:, ::-1], (center + half)[:, ::-1]], -1)


def check_boxes(strengths: dict[str, float], field: str = 'augmentation') -> None:
  """Raises ValueError if a strength makes views that are no boxes of the image."""
  for name in NO_BOX:
    if strengths.get(name):
      raise ValueError(
        f'config.{field}.{name} = {strengths[name]} makes views that are no boxes of the image; '
        'use 0, with others such as crop, flip, translate and zoom'
      )


def augment_patches(keys: jax.Array, patches: Patches, strengths: dict[str, float]) -> Patches:
  """Changes the colors of images that are cut into patches.

  Args:
    keys: [B] random keys, one per image.
    patches: images from 0 to 255.
    strengths: see `augment`, of `COLORS` alone: others would move pixels between patches.

  Returns:
    Patches of float32 from 0 to 255; padding is arbitrary.
  """
  B, L, side, _, _ = patches.pixels.shape
  # One column of patches is an image to `augment`, whose colors change by one map each.
  column = patches.pixels.reshape(B, L * side, side, 3)
  changed = augment(keys, column, L * side, strengths)
  return patches._replace(pixels=changed.reshape(patches.pixels.shape))


def augment_on_host(
  size: int, strengths: dict[str, float]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """Returns `augment` on the host's CPU, for use in a data pipeline.

  Args:
    size: see `augment`.
    strengths: see `augment`.

  Returns:
    (seeds [B] integers, images uint8 [B, H, H, 3]) -> uint8 [B, S, S, 3]: the rounded result of
    `augment` with the keys of the seeds.

  Raises:
    ValueError: if a strength is unknown or out of bounds.
  """
  check_strengths(strengths)
  processor = jax.local_devices(backend='cpu')[0]

  @jax.jit
  def change(seeds, images):
    images = augment(jax.vmap(jax.random.key)(seeds), images, size, strengths)
    return jnp.round(images).astype(jnp.uint8)

  def change_on_host(seeds, images):
    with jax.default_device(processor):
      return np.asarray(change(seeds, images))

  return change_on_host
