"""Pictures that a task leaves in its workdir."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_GAP = 4  # pixels between the cells of a grid
_SCALE = 2  # of the cells


def grid(rows: Sequence[Sequence[np.ndarray]]) -> Image.Image:
  """Images [H, W, 3] uint8 of one size in rows and columns on white, twice as large."""
  H, W, _ = rows[0][0].shape
  height, width = _SCALE * H, _SCALE * W
  size = (len(rows[0]) * (width + _GAP) - _GAP, len(rows) * (height + _GAP) - _GAP)
  sheet = Image.new('RGB', size, 'white')
  for y, row in enumerate(rows):
    for x, cell in enumerate(row):
      large = Image.fromarray(cell).resize((width, height), Image.Resampling.NEAREST)
      sheet.paste(large, (x * (width + _GAP), y * (height + _GAP)))
  return sheet


def outline(
  frame: np.ndarray, boxes: np.ndarray, tracks: np.ndarray, wrong: np.ndarray
) -> np.ndarray:
  """A frame [S, S, 3] uint8 with boxes in the colors of tracks; wrong ones are crossed out.

  Args:
    frame: which is copied.
    boxes: [N, 4] top, left, bottom and right.
    tracks: [N] integers; boxes of −1 are left out.
    wrong: [N] whether a box is crossed out.
  """
  image = Image.fromarray(frame)
  draw = ImageDraw.Draw(image)
  for (top, left, bottom, right), track, is_wrong in zip(boxes, tracks, wrong, strict=True):
    if track >= 0:
      hue = track * 0.618034 % 1  # far apart for tracks that follow each other
      color = tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, 1, 0.9))
      corners = (left, top, right - 1, bottom - 1)
      draw.rectangle(corners, outline=color)
      if is_wrong:
        draw.line(corners, fill=color)
        draw.line((left, bottom - 1, right - 1, top), fill=color)
  return np.asarray(image)
