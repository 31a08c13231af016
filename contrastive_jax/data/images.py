"""From encoded pictures to arrays: CLIP's evaluation transform, and crops for training.

One rule for every picture: its pixels are what PIL's `convert('RGB')` makes of them. Transparency
is dropped, not composited; of an animation the first frame counts; EXIF rotation is not applied.
"""

import io
import math
import typing

import numpy as np
from PIL import Image

if typing.TYPE_CHECKING:
  import jax

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STANDARD_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
MAX_PIXELS = 2**26  # 8192 x 8192, or 200 MB of RGB

# PIL would try dozens of formats, among them PostScript, which is run and not read.
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'WEBP')


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


def file_type(encoded: bytes) -> str:
  """The ending of the file that a picture would be: 'bmp', 'gif', 'jpeg', 'png' or 'webp'.

  Raises:
    ValueError: if the bytes start as none of them.
  """
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      return image.format.lower()
  except (OSError, SyntaxError, ValueError) as error:
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
) -> np.ndarray:
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
    uint8 [S, S, 3].

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
  box = (left, top, left + width, top + height)
  return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
