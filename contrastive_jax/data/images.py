"""Decodes and resizes images: CLIP's evaluation transform, and crops for training.

`preprocess` and `resize` take an image as PIL opens it and equal open_clip: other modes are
converted by PIL's `convert('RGB')`, and the EXIF orientation is ignored. `decode` and crops of
encoded images, which read datasets, show an image as a viewer does: they apply the EXIF
orientation, and scale 16 bits to 8 where `convert` clips them. Both drop transparency, as open_clip
does, and take the first frame of an animation. `upright` does the same to an opened image and keeps
its mode, so that a later `resize` converts last.

PIL decodes: no other library is clearly faster on JPEG, and PIL treats every format alike
(experiments/decoding).
"""

import contextlib
import functools
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from contrastive_jax.data.patches import Patches

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STANDARD_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
MAX_PIXELS = 2**26  # 8192 x 8192, or 200 MB of RGB

# Without this list PIL tries dozens of formats, among them PostScript, which is executed.
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'WEBP')
# File extensions by PIL's format name; writers use the first. MPO is PIL's name for a JPEG followed
# by other JPEGs, as phones write them.
_ENDINGS = {
  'JPEG': ('jpeg', 'jpg'),
  'MPO': ('jpeg',),
  'PNG': ('png',),
  'WEBP': ('webp',),
  'GIF': ('gif',),
  'BMP': ('bmp',),
}
# File extensions that readers and writers know.
ENDINGS = tuple(dict.fromkeys(ending for endings in _ENDINGS.values() for ending in endings))

# Smallest side at which a JPEG is decoded, in multiples of the side it is resized to. 1 would be a
# quarter faster, and four times as far from a full decode (experiments/decoding).
_DECODE_MARGIN = 2

# EXIF tag of the orientation, and the transposition that undoes each value; 5 to 8 swap the sides.
_ORIENTATION = 0x0112
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


def decode(encoded: bytes, size: int | None = None) -> Image.Image:
  """Decodes a BMP, GIF, JPEG, PNG or WebP image.

  Args:
    encoded: the bytes of the file.
    size: the size to which the caller will resize the shorter side. A JPEG at least four times as
      large is decoded at 1/2, 1/4 or 1/8, to no less than twice `size`: about twice as fast, and
      about 1/255 from a full decode once resized. None decodes in full.

  Returns:
    An RGB image, upright.

  Raises:
    ValueError: if the image is incomplete or damaged, or has over `MAX_PIXELS` pixels.
  """
  with _opened(encoded) as image:
    if size:
      _shrink(image, size / min(image.size))
    return _pixels(image, _orientation(image))


def upright(image: Image.Image | bytes) -> Image.Image:
  """Applies the EXIF orientation, and scales 16 bits to 8.

  Args:
    image: an image of any mode, or the bytes of a file that `decode` takes.

  Returns:
    The image in its own mode, 'L' for 16 bits; the same object where nothing changes.

  Raises:
    ValueError: see `decode`; or if an image of mode 'I' or 'F' has values outside 0 to 255.
  """
  if isinstance(image, bytes):
    with _opened(image) as opened:
      return upright(opened)
  orientation = _orientation(image)
  image = _eight_bits(image)
  if image.mode in ('I', 'F'):
    low, high = image.getextrema()
    if not 0 <= low <= high <= 255 or (image.mode == 'F' and 0 < high <= 1):
      raise ValueError(
        f'an image of mode {image.mode} has values from {low:.4g} to {high:.4g}; give values from '
        "0 to 255, or 16 bits as mode 'I;16'"
      )
  return _turned(image, orientation)


@contextlib.contextmanager
def _opened(encoded: bytes) -> Iterator[Image.Image]:
  """Opens an image, reading only its header; PIL's errors become ValueError."""
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      width, height = image.size
      if width * height <= MAX_PIXELS:
        yield image
        return
  except Image.DecompressionBombError as error:
    raise ValueError(f'{error}; the limit here is {MAX_PIXELS} pixels') from error
  except (OSError, EOFError, SyntaxError, ValueError) as error:
    # Addresses of buffers in Pillow's messages differ from run to run.
    reason = re.sub(r' <.* object at .*>', '', str(error))
    raise ValueError(
      f'an image of {len(encoded)} bytes does not decode: {reason}; '
      f'give a complete {", ".join(_FORMATS)} file'
    ) from error
  raise ValueError(f'the image has {width} x {height} pixels; the limit is {MAX_PIXELS} in total')


def _orientation(image: Image.Image) -> int:
  """Returns the EXIF orientation; 1, upright, if it is missing or invalid."""
  try:
    value = image.getexif().get(_ORIENTATION)
    return value if value in _UPRIGHT else 1
  except Exception:  # PIL raises various errors for damaged EXIF; the pixels may be intact
    return 1


def _shrink(image: Image.Image, scale: float) -> float:
  """Asks PIL to decode a JPEG at a reduced size, given the `scale` of the resize to come.

  Returns:
    The scale at which it will be decoded.
  """
  if _DECODE_MARGIN * scale > 1 / 2:  # the largest reduced size of a JPEG
    return 1.0
  width, height = (math.ceil(_DECODE_MARGIN * scale * side) for side in image.size)
  stored, drafted = image.size, image.draft(None, (width, height))
  return drafted[1][2] / stored[0] if drafted else 1.0


def _pixels(image: Image.Image, orientation: int) -> Image.Image:
  image = _eight_bits(image)
  if image.mode != 'RGB':
    image = image.convert('RGB')
  image = _turned(image, orientation)
  image.info.clear()  # EXIF among it, which must not be applied twice
  return image


def _eight_bits(image: Image.Image) -> Image.Image:
  image.load()
  if not image.mode.startswith('I;16'):
    return image
  return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _turned(image: Image.Image, orientation: int) -> Image.Image:
  if orientation not in _UPRIGHT:
    return image
  image = image.transpose(_UPRIGHT[orientation])
  image.info.clear()  # EXIF among it, which must not be applied twice
  return image


def file_type(encoded: bytes) -> str:
  """Returns the file extension of encoded bytes: 'bmp', 'gif', 'jpeg', 'png' or 'webp'.

  Raises:
    ValueError: if the bytes have another format.
  """
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      return _ENDINGS[image.format][0]
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    raise ValueError(f'{len(encoded)} bytes are not an image: {error}') from error


def resize(
  image: Image.Image, size: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> np.ndarray:
  """CLIP's evaluation transform without the normalization: shorter side to S, center crop.

  Conversion to RGB comes last, as in open_clip: a palette is resized by nearest neighbor, and
  transparent pixels do not bleed into opaque ones.

  Args:
    image: an image of any mode and size.
    size: S, pixels.
    resampling: bicubic, as CLIP's, or another filter of PIL.

  Returns:
    uint8 [S, S, 3].

  Raises:
    ValueError: if the resized image would have over `MAX_PIXELS` pixels.
  """
  width, height = image.size
  longer = int(size * max(width, height) / min(width, height))
  if size * longer > MAX_PIXELS:
    raise ValueError(
      f'an image of {width} x {height}, its shorter side resized to {size}, has over '
      f'{MAX_PIXELS} pixels; crop it first'
    )
  target = (size, longer) if width <= height else (longer, size)
  image = image.resize(target, resampling)
  left, top = (round((side - size) / 2) for side in target)
  return np.asarray(image.crop((left, top, left + size, top + size)).convert('RGB'))


def normalize(image: Any, mean: np.ndarray = MEAN, std: np.ndarray = STANDARD_DEVIATION) -> Any:
  """Normalizes pixels by a mean and a standard deviation, by default those of CLIP.

  Args:
    image: [..., 3], values from 0 to 255, a NumPy or a JAX array; or `Patches` of such pixels.
    mean: [3] float32, on the scale from 0 to 1.
    std: [3] float32, on the scale from 0 to 1.

  Returns:
    float32 [..., 3], a NumPy or a JAX array like `image`; or `Patches`.
  """
  if isinstance(image, Patches):
    return image._replace(pixels=normalize(image.pixels, mean, std))
  return (image.astype('float32') / 255 - mean) / std


def normalizer(mean: Sequence[float] = (), std: Sequence[float] = ()) -> Callable:
  """Returns `normalize` with a mean and a standard deviation of each channel; () for CLIP's."""
  return functools.partial(
    normalize,
    mean=np.array(mean, np.float32) if len(mean) else MEAN,
    std=np.array(std, np.float32) if len(std) else STANDARD_DEVIATION,
  )


def preprocess(image: Image.Image, size: int = 224) -> np.ndarray:
  """CLIP's evaluation transform, equal to open_clip's.

  As in open_clip, the EXIF orientation is ignored and 16 bits are clipped to 8; apply
  `images.upright` first to match datasets and `contrastive_jax.load`.

  Args:
    image: an image of any mode and size, from `PIL.Image.open`.
    size: S, pixels.

  Returns:
    float32 [S, S, 3], normalized.

  Raises:
    ValueError: see `resize`.
  """
  return normalize(resize(image, size))


def _check(name: str, low: float, high: float, *values: float) -> None:
  if not all(low <= value <= high for value in values) or list(values) != sorted(values):
    given = ', '.join(map(str, values))
    raise ValueError(f'{name} = {given}; use values from {low} to {high}, the smaller first')


def random_resized_crop(
  image: Image.Image | bytes,
  size: int,
  rng: np.random.Generator,
  *,
  area: tuple[float, float] = (0.9, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
  """Cuts a random box and resizes it: `resized_crop` at a random position [1].

  References:
    [1] Szegedy et al., Going Deeper with Convolutions, 2015.
  """
  return resized_crop(image, size, rng.random(4), area=area, aspect=aspect)


def resized_crop(
  image: Image.Image | bytes,
  size: int,
  position: Sequence[float],
  *,
  area: tuple[float, float] = (0.9, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
  """Cuts a box and resizes it to S x S, bicubic.

  The box always has the area asked for; an aspect that does not fit is replaced by the nearest one
  that does.

  Args:
    image: an RGB image, or the bytes of one, which `decode` reads at the size that the box needs.
    size: S, pixels.
    position: four numbers from 0 to 1: the area and the logarithm of the aspect within their
      ranges, and the horizontal and vertical position of the box.
    area: minimum and maximum share of the image's area.
    aspect: minimum and maximum ratio of width to height of the box.

  Returns:
    uint8 [S, S, 3].

  Raises:
    ValueError: if a range is empty or out of bounds, or the bytes do not decode.
  """
  _check('area', 1e-6, 1, *area)
  _check('aspect', 1e-6, 1e6, *aspect)
  if not isinstance(image, bytes):
    return _cut(image, _box(*image.size, position, area, aspect), size)
  with _opened(image) as opened:
    orientation = _orientation(opened)
    box = _box(*opened.size[:: -1 if orientation >= 5 else 1], position, area, aspect)
    scale = _shrink(opened, size / min(box[2] - box[0], box[3] - box[1]))
    pixels = _pixels(opened, orientation)
  return _cut(pixels, [scale * side for side in box], size)


def crop_box(
  image: Image.Image, position: Sequence[float], area: tuple[float, float]
) -> tuple[float, float, float, float]:
  """Returns a box of a crop at about an image's own aspect: left, top, right, bottom, in pixels.

  Args:
    image: the image.
    position: see `resized_crop`; the aspect of the box is from 3/4 to 4/3 of the image's.
    area: minimum and maximum share of the image's area.
  """
  own = image.width / image.height
  return _box(*image.size, position, area, (own * 3 / 4, own * 4 / 3))


def _box(width, height, position, area, aspect):
  """Returns left, top, right, bottom, in pixels."""
  at_area, at_aspect, right, down = map(float, position)
  share = area[0] + (area[1] - area[0]) * at_area
  low, high = map(math.log, aspect)
  ratio = math.exp(low + (high - low) * at_aspect)
  shape = width / height
  ratio = min(max(ratio, share * shape), shape / share)
  box_width = min(math.sqrt(share * width * height * ratio), width)
  box_height = min(box_width / ratio, height)
  left, top = right * (width - box_width), down * (height - box_height)
  return left, top, left + box_width, top + box_height


def _cut(image, box, size):
  return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
