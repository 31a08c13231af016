"""Which changes a config asks for, and their order.

Inside the step, the host is left with what every epoch repeats, decoding and resizing
(experiments/augmentation). Crops of large pictures stay there too, see `images`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.data.augmentation import changes, policies

# The greatest strengths that make sense.
_SHAPE = {
  'degrees': 180,
  'shear': 80,
  'translate': 1,
  'zoom': 0.9,
  'stretch': 0.9,
  'flip': 1,
  'flip_vertical': 1,
  'crop': 0.99,
}
_COLOUR = {'brightness': 1, 'contrast': 1, 'saturation': 1, 'hue': 0.5, 'grey': 1}
_BOUNDS = _SHAPE | {'rand_augment': 1, 'aug_mix': 1} | _COLOUR | {'blur': 1, 'erase': 1}


def check_strengths(strengths: dict[str, float]) -> None:
  """Raises ValueError if a strength of `augment` is unknown or out of bounds."""
  for name, strength in strengths.items():
    if name not in _BOUNDS:
      raise ValueError(f'config.augmentation.{name} is unknown; use some of {sorted(_BOUNDS)}')
    if not 0 <= strength <= _BOUNDS[name]:
      raise ValueError(
        f'config.augmentation.{name} = {strength}; use a number from 0 to {_BOUNDS[name]}'
      )


# Places and colours need all bits of a float32, which accelerators leave out by default.
@jax.default_matmul_precision('highest')
def augment(
  keys: jax.Array, images: jax.Array, size: int, strengths: dict[str, float]
) -> jax.Array:
  """Draws the changes of each picture, and makes them in the order of the names below.

  Strengths are the greatest change either way, but for `flip`, `flip_vertical`, `grey`, `blur` and
  `erase`, which are probabilities. One left out is 0 and costs nothing, and with none a picture of
  the size asked for stays as it is.

  The first eight are one resampling, bilinear:

  - degrees, shear: turn and horizontal slant, in degrees.
  - translate: move, as a share of the side.
  - zoom, stretch: relative change of size, and of the width over the height.
  - flip, flip_vertical: left to right, top to bottom.
  - crop: the share of the area that a random box, its width 3/4 to 4/3 of its height, leaves out.

  Then policies of many operations, see `policies`:

  - rand_augment: level of two operations of fourteen; 0.3 is the paper's 9 of 30.
  - aug_mix: greatest level in three chains, mixed with the picture; 0.3 is severity 3 of 10.

  Then one map of the colours:

  - brightness, contrast, saturation: of the factor on all channels, on the distance from mid-grey,
    and on the distance from luma.
  - hue: turn about the grey axis, as a share of a full one.
  - grey: no colour left.

  And last:

  - blur: Gaussian, of a deviation from 0.1 to 2 pixels, SimCLR's for 224 [1].
  - erase: a box of one colour, of 15% to 50% of each side, hides what is below [2].

  Args:
    keys: [B] random keys, so that a picture's changes do not hang on its company.
    images: [B, H, H, 3] from 0 to 255. White is what lies outside.
    size: S, the side of the result. Pictures somewhat larger give sharper results, with `crop` up
      to 1 / √(1 - crop) times; far larger ones are sampled, not averaged.
    strengths: by name.

  Returns:
    [B, S, S, 3] float32 from 0 to 255.

  Raises:
    ValueError: if a strength is unknown or out of bounds.

  References:
    [1] Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020.
    [2] Zhong et al., Random Erasing Data Augmentation, 2020.
  """
  check_strengths(strengths)
  images = images.astype(jnp.float32)
  shape_keys, colour_keys, erase_keys = jax.vmap(jax.random.split, (0, None), 1)(keys, 3)
  # Further draws come after the three of the split, which stay as they are whatever is added.
  crop_keys, rand_keys, mix_keys, blur_keys = (
    jax.vmap(jax.random.fold_in, (0, None))(keys, number) for number in range(3, 7)
  )
  if images.shape[1] != size or any(map(strengths.get, _SHAPE)):
    place = changes.draw_shape(shape_keys, strengths)
    if crop := strengths.get('crop'):
      place = changes.compose(place, changes.draw_crop(crop_keys, crop))
    images = changes.resample(images, size, *place)
  if level := strengths.get('rand_augment'):
    images = policies.rand_augment(rand_keys, images, level)
  if level := strengths.get('aug_mix'):
    images = policies.aug_mix(mix_keys, images, level)
  if any(map(strengths.get, _COLOUR)):
    images = changes.colour(colour_keys, images, strengths)
  if probability := strengths.get('blur'):
    images = changes.blur(blur_keys, images, probability)
  if probability := strengths.get('erase'):
    images = changes.erase(erase_keys, images, probability)
  return images


def augment_on_host(
  size: int, strengths: dict[str, float]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """The same changes by the host's processor, for pictures that a pipeline has not yet handed over.

  Args:
    size: as for `augment`.
    strengths: as for `augment`.

  Returns:
    (seeds [B] integers, one a picture; images uint8 [B, H, H, 3]) -> uint8 [B, S, S, 3]: what
    `augment` gives for the keys of the seeds, rounded.

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
