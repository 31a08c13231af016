"""Drawings on white, to be pasted into scenes with exact masks."""

import numpy as np
from PIL import Image
from scipy import ndimage

_LIGHT = 240  # smallest channel of a pixel that is background where it touches the border


def silhouette(image: np.ndarray) -> np.ndarray:
  """The pixels [S, S] of a drawing on white [S, S, 3]: all but what is white up to the border.

  >>> drawing = np.full((5, 5, 3), 255)
  >>> drawing[1:4, 1:4] = 0
  >>> drawing[2, 2] = 255
  >>> int(silhouette(drawing).sum())
  9
  """
  light = np.pad(image.min(-1) >= _LIGHT, 1, constant_values=True)
  regions, _ = ndimage.label(light)
  return (regions != regions[0, 0])[1:-1, 1:-1]


def background(random: np.random.Generator, size: int) -> np.ndarray:
  """A smooth background [S, S, 3], uint8, between four colors."""
  return scaled(random.integers(0, 256, (2, 2, 3), np.uint8), size)


def paste(scene: np.ndarray, drawing: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
  """Pastes the silhouette of a drawing into a scene, in place.

  Args:
    scene: [S, S, 3] uint8, which is changed.
    drawing: [H, H, 3] uint8 on white.
    top: of the square.
    left: likewise.
    side: of the square, which lies in the scene.

  Returns:
    [side, side], the pixels of the square that were pasted.
  """
  covered = scaled(np.uint8(255) * silhouette(drawing), side) > 127
  scene[top : top + side, left : left + side][covered] = scaled(drawing, side)[covered]
  return covered


def scaled(image: np.ndarray, side: int) -> np.ndarray:
  """An image [H, W] or [H, W, 3], uint8, scaled to a square."""
  return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
