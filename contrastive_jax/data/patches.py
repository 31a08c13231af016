"""NaFlex: images at their own aspect, resized and cut into patches to a sequence length.

References:
  Dehghani et al., Patch n' Pack: NaViT, a Vision Transformer for any Aspect Ratio and Resolution,
    2023.
  Tschannen et al., SigLIP 2: Multilingual Vision-Language Encoders, 2025.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# Scales of an image among which `grid_of` searches, and the width at which it stops.
_MIN_SCALE, _MAX_SCALE, _SCALE_WIDTH = 1e-6, 100.0, 1e-5


class Patches(NamedTuple):
  """A batch of images as patches, padded to L; or, without the axis B, one image.

  Attributes:
    pixels: [B, L, p, p, 3], the patches of each image row by row, then padding.
    grid: int32 [B, 2], rows and columns of patches; their product is at most L.
  """

  pixels: Any
  grid: Any


def grid_of(width: int, height: int, length: int, patch: int) -> tuple[int, int]:
  """Returns the largest grid of at most `length` patches at an image's aspect, as SigLIP 2.

  >>> grid_of(640, 480, length=256, patch=16)
  (14, 18)

  Args:
    width: of the image, in pixels.
    height: likewise.
    length: L, maximum number of patches.
    patch: side of a patch, in pixels.

  Returns:
    Rows and columns. The image is resized to fill them, which changes each side by less than a
    patch.
  """

  def grid(scale):
    return tuple(max(1, math.ceil(side * scale / patch)) for side in (height, width))

  low, high = _MIN_SCALE, _MAX_SCALE
  while high - low >= _SCALE_WIDTH:
    middle = (low + high) / 2
    low, high = (middle, high) if math.prod(grid(middle)) <= length else (low, middle)
  # Of an image that is over a million times as long as wide, the grid is cut.
  rows, columns = grid(low)
  return min(rows, length), min(columns, max(length // rows, 1))


def patchify(
  image: Image.Image,
  length: int,
  patch: int,
  *,
  box: Sequence[float] | None = None,
  resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Patches:
  """Resizes an image to the grid of `grid_of`, and cuts it into patches.

  Args:
    image: of any mode and size; converted to RGB last, as in `images.resize`.
    length: L, to which the patches are padded with zeros.
    patch: p, side of a patch, in pixels.
    box: left, top, right and bottom of the part to take, in pixels; None for all.
    resampling: a filter of PIL.

  Returns:
    Pixels uint8 [L, p, p, 3], and the grid int32 [2].
  """
  left, top, right, bottom = box or (0, 0, *image.size)
  rows, columns = grid_of(right - left, bottom - top, length, patch)
  resized = image.resize((columns * patch, rows * patch), resampling, box=box)
  squares = np.asarray(resized.convert('RGB')).reshape(rows, patch, columns, patch, 3)
  pixels = np.zeros([length, patch, patch, 3], np.uint8)
  pixels[: rows * columns] = squares.swapaxes(1, 2).reshape(-1, patch, patch, 3)
  return Patches(pixels, np.array([rows, columns], np.int32))
