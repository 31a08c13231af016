"""From encoded pictures to arrays: CLIP's evaluation transform, and crops for training.

`preprocess` and `resize` take a picture as PIL opens it and equal open_clip: what is not RGB
becomes so by PIL's `convert('RGB')`, and EXIF's turn is not applied. `decode` and crops of encoded
pictures, by which data sets are read, show a picture as a viewer does: brought upright as EXIF
says, and 16 bits scaled to 8 where `convert` clips them. Both drop transparency, as open_clip does,
and take the first frame of an animation. `upright` does the same to an opened picture and keeps its
mode, so that a `resize` after it converts last.

PIL decodes: on JPEG, most of what the web holds, no other library is clearly faster, and its rules
are the same for every format (experiments/decoding).
"""

import contextlib
import io
import math
import typing
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

if typing.TYPE_CHECKING:
  import jax

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STANDARD_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
MAX_PIXELS = 2**26  # 8192 x 8192, or 200 MB of RGB

# PIL would try dozens of formats, among them PostScript, which is run and not read.
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'WEBP')
# Endings of files by PIL's name of the format; the first is written. MPO is PIL's name of a JPEG
# that other JPEGs follow, as phones write them.
_ENDINGS = {
  'JPEG': ('jpeg', 'jpg'),
  'MPO': ('jpeg',),
  'PNG': ('png',),
  'WEBP': ('webp',),
  'GIF': ('gif',),
  'BMP': ('bmp',),
}
# Endings that readers know; writers use no others.
ENDINGS = tuple(dict.fromkeys(ending for endings in _ENDINGS.values() for ending in endings))

# A JPEG is not decoded at less than this many times the side that it is resized to. Once would be a
# quarter faster, and four times as far from the whole picture's pixels (experiments/decoding).
_MARGIN = 2

# What brings a picture upright, by the value of EXIF's tag; from 5 on, the sides change places.
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
  """Decodes a BMP, GIF, JPEG, PNG or WebP picture.

  Args:
    encoded: the bytes of the file.
    size: to which the caller will resize the shorter side. A JPEG of four times that or more is
      decoded at 1/2, 1/4 or 1/8, where twice `size` is left: about twice as fast, and about 1/255
      from the whole picture's pixels, once resized. Leave it out where these are to be exact.

  Returns:
    An RGB picture, upright.

  Raises:
    ValueError: if the bytes are no whole picture, or it has over `MAX_PIXELS` pixels.
  """
  with _opened(encoded) as image:
    if size:
      _shrink(image, size / min(image.size))
    return _pixels(image, _orientation(image))


def upright(image: Image.Image | bytes) -> Image.Image:
  """Turns a picture upright as its EXIF says, and scales 16 bits to 8.

  Args:
    image: a picture of any mode, or the bytes of a file that `decode` takes.

  Returns:
    The picture in its own mode, 'L' for 16 bits; the same object where nothing changes.

  Raises:
    ValueError: as `decode`, or if the values of a mode 'I' or 'F' picture do not run from 0 to 255.
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
        f'a picture of mode {image.mode} has values from {low:.4g} to {high:.4g}; give values from '
        "0 to 255, or 16 bits as mode 'I;16'"
      )
  return _turned(image, orientation)


@contextlib.contextmanager
def _opened(encoded: bytes) -> Iterator[Image.Image]:
  """The picture with its header read; what PIL then raises becomes a ValueError."""
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      width, height = image.size
      if width * height <= MAX_PIXELS:
        yield image
        return
  except Image.DecompressionBombError as error:
    raise ValueError(f'{error}; the limit here is {MAX_PIXELS} pixels') from error
  except (OSError, EOFError, SyntaxError, ValueError) as error:
    raise ValueError(
      f'a picture of {len(encoded)} bytes does not decode: {error}; '
      f'give a whole {", ".join(_FORMATS)} file'
    ) from error
  raise ValueError(f'the picture has {width} x {height} pixels; the limit is {MAX_PIXELS} in all')


def _orientation(image: Image.Image) -> int:
  """EXIF's; 1, upright, where there is none that makes sense."""
  try:
    value = image.getexif().get(_ORIENTATION)
    return value if value in _UPRIGHT else 1
  except Exception:  # PIL has no one error for damaged EXIF, and the pixels may be whole
    return 1


def _shrink(image: Image.Image, scale: float) -> float:
  """Has a JPEG decoded smaller where `scale` will be its resize's; the scale that it gets."""
  if _MARGIN * scale > 1 / 2:  # not even by the least that a JPEG allows
    return 1.0
  width, height = (math.ceil(_MARGIN * scale * side) for side in image.size)
  stored, drafted = image.size, image.draft(None, (width, height))
  return drafted[1][2] / stored[0] if drafted else 1.0


def _pixels(image: Image.Image, orientation: int) -> Image.Image:
  image = _eight_bits(image)
  if image.mode != 'RGB':
    image = image.convert('RGB')
  image = _turned(image, orientation)
  image.info.clear()  # of the file, EXIF among it, which must not turn the picture twice
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
  image.info.clear()  # EXIF among it, which must not turn the picture twice
  return image


def file_type(encoded: bytes) -> str:
  """The ending of the file that a picture would be: 'bmp', 'gif', 'jpeg', 'png' or 'webp'.

  Raises:
    ValueError: if the bytes start as none of them.
  """
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      return _ENDINGS[image.format][0]
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    raise ValueError(f'{len(encoded)} bytes are no picture: {error}') from error


def resize(image: Image.Image, size: int) -> np.ndarray:
  """CLIP's evaluation transform before normalisation: bicubic, the shorter side to S, centre crop.

  Conversion to RGB comes last, as in open_clip: a palette is resized by nearest neighbour, and
  transparent pixels do not bleed into opaque ones.

  Args:
    image: a picture of any mode and size.
    size: S, pixels.

  Returns:
    uint8 [S, S, 3].

  Raises:
    ValueError: if the picture is so narrow that, resized, it has over `MAX_PIXELS` pixels.
  """
  width, height = image.size
  longer = int(size * max(width, height) / min(width, height))
  if size * longer > MAX_PIXELS:
    raise ValueError(
      f'a picture of {width} x {height}, its shorter side brought to {size}, has over '
      f'{MAX_PIXELS} pixels; crop it first'
    )
  target = (size, longer) if width <= height else (longer, size)
  image = image.resize(target, Image.Resampling.BICUBIC)
  left, top = (round((side - size) / 2) for side in target)
  return np.asarray(image.crop((left, top, left + size, top + size)).convert('RGB'))


def normalize(
  image: 'np.ndarray | jax.Array',
  mean: np.ndarray = MEAN,
  deviation: np.ndarray = STANDARD_DEVIATION,
) -> 'np.ndarray | jax.Array':
  """Brings pixels to a mean and a deviation, by default those of CLIP's training set.

  Args:
    image: [..., 3], values from 0 to 255, a NumPy or a JAX array.
    mean: [3] float32, subtracted from values from 0 to 1.
    deviation: [3] float32, by which these are then divided.

  Returns:
    float32 [..., 3], of the same library.
  """
  return (image.astype('float32') / 255 - mean) / deviation


def preprocess(image: Image.Image, size: int = 224) -> np.ndarray:
  """CLIP's evaluation transform, equal to open_clip's.

  As there, EXIF turns nothing and 16 bits are clipped to 8; apply `images.upright` first to have
  the picture that data sets and `contrastive_jax.load` show to a model.

  Args:
    image: a picture of any mode and size, as `PIL.Image.open` gives it.
    size: S, pixels.

  Returns:
    float32 [S, S, 3], normalised.

  Raises:
    ValueError: as `resize`.
  """
  return normalize(resize(image, size))


def _check(name: str, low: float, high: float, *values: float) -> None:
  if not all(low <= value <= high for value in values) or list(values) != sorted(values):
    given = ', '.join(map(str, values))
    raise ValueError(f'{name} = {given}; use values from {low} to {high}, the least first')


def random_resized_crop(
  image: Image.Image | bytes,
  size: int,
  rng: np.random.Generator,
  *,
  area: tuple[float, float] = (0.9, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
  """`resized_crop` at a random place [1], uint8 [S, S, 3].

  References:
    [1] Szegedy et al., Going Deeper with Convolutions, 2015.
  """
  return resized_crop(image, size, rng.random(4), area=area, aspect=aspect)


def resized_crop(
  image: Image.Image | bytes,
  size: int,
  place: Sequence[float],
  *,
  area: tuple[float, float] = (0.9, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
  """Cuts a box and resizes it to S x S, bicubic.

  The box always has the area asked for; an aspect at which it would not fit is brought to the
  nearest that does.

  Args:
    image: an RGB picture, or the bytes of one, decoded as `decode` does to suit the box.
    size: S, pixels.
    place: four numbers from 0 to 1: the box's area and the logarithm of its aspect within their
      ranges, and how far it lies to the right and to the bottom.
    area: least and greatest share of the picture's area.
    aspect: least and greatest width of the box over its height.

  Returns:
    uint8 [S, S, 3].

  Raises:
    ValueError: if a range is empty or out of bounds, or the bytes do not decode.
  """
  _check('area', 1e-6, 1, *area)
  _check('aspect', 1e-6, 1e6, *aspect)
  if not isinstance(image, bytes):
    return _cut(image, _box(*image.size, place, area, aspect), size)
  with _opened(image) as opened:
    orientation = _orientation(opened)
    box = _box(*opened.size[:: -1 if orientation >= 5 else 1], place, area, aspect)
    scale = _shrink(opened, size / min(box[2] - box[0], box[3] - box[1]))
    pixels = _pixels(opened, orientation)
  return _cut(pixels, [scale * side for side in box], size)


def _box(width, height, place, area, aspect):
  """Left, top, right, bottom, in pixels."""
  at_area, at_aspect, right, down = map(float, place)
  share = area[0] + (area[1] - area[0]) * at_area
  least, greatest = map(math.log, aspect)
  ratio = math.exp(least + (greatest - least) * at_aspect)
  shape = width / height
  ratio = min(max(ratio, share * shape), shape / share)
  box_width = min(math.sqrt(share * width * height * ratio), width)
  box_height = min(box_width / ratio, height)
  left, top = right * (width - box_width), down * (height - box_height)
  return left, top, left + box_width, top + box_height


def _cut(image, box, size):
  return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
