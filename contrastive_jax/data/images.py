"""From encoded pictures to arrays: CLIP's evaluation transform, and augmentations for training.

One rule for every picture: its pixels are what PIL's `convert('RGB')` makes of them. Transparency
is dropped, not composited; of an animation the first frame counts; EXIF rotation is not applied.
"""

import functools
import io
import math
import typing
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageFilter

if typing.TYPE_CHECKING:
  import jax

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STANDARD_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
MAX_PIXELS = 2**26  # 8192 x 8192, or 200 MB of RGB

# PIL would try dozens of formats, among them PostScript, which is run and not read.
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'WEBP')
_LUMA = np.array([0.299, 0.587, 0.114])


def decode(encoded: bytes) -> Image.Image:
  """Decodes a BMP, GIF, JPEG, PNG or WebP picture.

  Args:
    encoded: the bytes of the file.

  Returns:
    An RGB picture; transparency is dropped, as in `preprocess`.

  Raises:
    ValueError: if the bytes are no whole picture, or it has over `MAX_PIXELS` pixels.
  """
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      width, height = image.size
      if width * height <= MAX_PIXELS:
        return image.convert('RGB')
  except Image.DecompressionBombError as error:
    raise ValueError(f'{error}; the limit here is {MAX_PIXELS} pixels') from error
  except (OSError, EOFError, SyntaxError, ValueError) as error:
    raise ValueError(
      f'a picture of {len(encoded)} bytes does not decode: {error}; '
      f'give a whole {", ".join(_FORMATS)} file'
    ) from error
  raise ValueError(f'the picture has {width} x {height} pixels; the limit is {MAX_PIXELS} in all')


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


def normalize(image: 'np.ndarray | jax.Array') -> 'np.ndarray | jax.Array':
  """Brings pixels to the mean and deviation of CLIP's training set.

  Args:
    image: [..., 3], values from 0 to 255, a NumPy or a JAX array.

  Returns:
    float32 [..., 3], of the same library.
  """
  return (image.astype('float32') / 255 - MEAN) / STANDARD_DEVIATION


def preprocess(image: Image.Image, size: int = 224) -> np.ndarray:
  """CLIP's evaluation transform, equal to open_clip's.

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
  image: Image.Image,
  size: int,
  rng: np.random.Generator,
  *,
  area: tuple[float, float] = (0.9, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Image.Image:
  """Cuts a random box and resizes it to S x S, bicubic [1].

  The box always has the area drawn; an aspect at which it would not fit is brought to the nearest
  that does.

  Args:
    image: an RGB picture.
    size: S, pixels.
    rng: the source of randomness.
    area: least and greatest share of the picture's area.
    aspect: least and greatest width of the box over its height.

  Returns:
    RGB, S x S.

  Raises:
    ValueError: if a range is empty or out of bounds.

  References:
    [1] Szegedy et al., Going Deeper with Convolutions, 2015.
  """
  _check('area', 1e-6, 1, *area)
  _check('aspect', 1e-6, 1e6, *aspect)
  share, ratio = rng.uniform(*area), math.exp(rng.uniform(*np.log(aspect)))
  shape = image.width / image.height
  ratio = min(max(ratio, share * shape), shape / share)
  width = min(math.sqrt(share * image.width * image.height * ratio), image.width)
  height = min(width / ratio, image.height)
  left, top = rng.uniform(size=2) * (image.width - width, image.height - height)
  return image.resize(
    (size, size), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height)
  )


def random_affine(
  image: Image.Image,
  rng: np.random.Generator,
  *,
  degrees: float = 10.0,
  translate: float = 0.1,
  scale: float = 0.1,
  shear: float = 5.0,
) -> Image.Image:
  """Turns, shears, scales and moves a picture, on white, in one bilinear resampling.

  Args:
    image: an RGB picture.
    rng: the source of randomness.
    degrees: greatest turn, either way.
    translate: greatest move, as a share of each side, either way.
    scale: greatest change of size, either way: 0.1 scales by 0.9 to 1.1.
    shear: greatest horizontal shear in degrees, either way.

  Returns:
    RGB, of the same size.

  Raises:
    ValueError: if a strength is out of bounds.
  """
  _check('degrees', 0, 180, degrees)
  _check('translate', 0, 1, translate)
  _check('scale', 0, 0.99, scale)
  _check('shear', 0, 80, shear)
  turn, slant = np.radians(rng.uniform(-1, 1, 2) * (degrees, shear))
  factor = 1 + rng.uniform(-scale, scale)
  centre = np.array(image.size) / 2
  move = rng.uniform(-translate, translate, 2) * image.size
  rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
  # PIL asks where each pixel of the result comes from: the inverse.
  inverse = np.linalg.inv(factor * rotation @ [[1, np.tan(slant)], [0, 1]])
  offset = centre - inverse @ (centre + move)
  return image.transform(
    image.size,
    Image.Transform.AFFINE,
    np.column_stack([inverse, offset]).ravel().tolist(),
    resample=Image.Resampling.BILINEAR,
    fillcolor=(255, 255, 255),
  )


def colour_jitter(
  image: Image.Image,
  rng: np.random.Generator,
  *,
  brightness: float = 0.4,
  contrast: float = 0.4,
  saturation: float = 0.4,
  hue: float = 0.1,
) -> Image.Image:
  """Turns hue and scales saturation, brightness and contrast, as one affine map of colours.

  Args:
    image: an RGB picture.
    rng: the source of randomness.
    brightness: greatest change of the factor on all channels, either way.
    contrast: greatest change of the factor on the distance from mid-grey, either way.
    saturation: greatest change of the factor on the distance from luma, either way.
    hue: greatest turn about the grey axis as a share of a full turn, either way.

  Returns:
    RGB, of the same size.

  Raises:
    ValueError: if a strength is out of bounds.
  """
  _check('brightness', 0, 1, brightness)
  _check('contrast', 0, 1, contrast)
  _check('saturation', 0, 1, saturation)
  _check('hue', 0, 0.5, hue)
  light, spread, vivid = 1 + rng.uniform(-1, 1, 3) * (brightness, contrast, saturation)
  angle = 2 * np.pi * rng.uniform(-hue, hue)
  # Rodrigues' rotation about (1, 1, 1) / √3.
  cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
  turn = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) / 3 + np.sin(angle) * cross
  matrix = spread * light * (vivid * np.eye(3) + (1 - vivid) * _LUMA) @ turn
  offset = np.full(3, (1 - spread) * 255 / 2)
  return image.convert('RGB', np.column_stack([matrix, offset]).ravel().tolist())


def random_flip(
  image: Image.Image, rng: np.random.Generator, *, probability: float = 0.5
) -> Image.Image:
  """Mirrors a picture left to right with the given probability; ValueError if that is none."""
  _check('probability', 0, 1, probability)
  chosen = rng.uniform() < probability
  return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if chosen else image


def random_grey(
  image: Image.Image, rng: np.random.Generator, *, probability: float = 0.2
) -> Image.Image:
  """Drops the colours of a picture with the given probability; ValueError if that is none."""
  _check('probability', 0, 1, probability)
  return image.convert('L').convert('RGB') if rng.uniform() < probability else image


def random_blur(
  image: Image.Image,
  rng: np.random.Generator,
  *,
  probability: float = 0.5,
  sigma: tuple[float, float] = (0.1, 2.0),
) -> Image.Image:
  """Blurs a picture with the given probability.

  Args:
    image: an RGB picture.
    rng: the source of randomness.
    probability: of a blur.
    sigma: least and greatest deviation of the Gaussian, pixels.

  Returns:
    RGB, of the same size.

  Raises:
    ValueError: if a strength is out of bounds.
  """
  _check('probability', 0, 1, probability)
  _check('sigma', 0, math.inf, *sigma)
  chosen, deviation = rng.uniform() < probability, rng.uniform(*sigma)
  return image.filter(ImageFilter.GaussianBlur(deviation)) if chosen else image


def augment(
  image: Image.Image,
  size: int,
  rng: np.random.Generator,
  strengths: Mapping[str, Mapping[str, typing.Any]],
) -> np.ndarray:
  """Applies the augmentations that a config names; with none, it is `resize`.

  The order is always crop, affine, flip, colour, grey, blur, whatever that of the names, since a
  ConfigDict sorts its keys.

  Args:
    image: an RGB picture.
    size: S, pixels.
    rng: the source of randomness.
    strengths: keyword arguments by name, such as `{'crop': {'area': (0.5, 1.0)}, 'flip': {}}`.

  Returns:
    uint8 [S, S, 3].

  Raises:
    ValueError: if a name is unknown, or a strength is out of bounds.
  """
  steps = {
    'crop': functools.partial(random_resized_crop, size=size),  # the rest costs less once small
    'affine': random_affine,
    'flip': random_flip,
    'colour': colour_jitter,
    'grey': random_grey,
    'blur': random_blur,
  }
  unknown = [name for name in strengths if name not in steps]
  if unknown:
    raise ValueError(f'strengths names {unknown}; choose among {list(steps)}')
  for name, step in steps.items():
    if name in strengths:
      image = step(image, rng=rng, **strengths[name])
  return resize(image, size)
