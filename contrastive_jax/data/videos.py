"""Pseudo-videos with true tracks: drawings that move, change style and occlude each other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contrastive_jax.data.scenes import background, paste, scaled

_SIDE = (0.22, 0.4)  # of a drawing, in sides of the frame
_SPEED = 0.08  # largest, per frame, in sides of the frame
_VISIBLE = 0.3  # share of its silhouette from which an instance counts as seen


class Video(NamedTuple):
  """T frames of N instances.

  Attributes:
    frames: [T, S, S, 3] uint8.
    boxes: [T, N, 4] top, left, bottom and right, pixels.
    crops: [T, N, C, C, 3] uint8, what is within the boxes, with whatever covers them.
    seen: [T, N] whether enough of an instance is uncovered.
  """

  frames: np.ndarray
  boxes: np.ndarray
  crops: np.ndarray
  seen: np.ndarray


def compose_video(
  drawings: Sequence[np.ndarray],
  *,
  frames: int,
  size: int,
  crop: int,
  random: np.random.Generator,
) -> Video:
  """Moves instances over a smooth background, the later ones in front; they bounce off the edges.

  Args:
    drawings: per instance, its drawings [M, H, H, 3] uint8 on white, a random one of which is in
      each frame.
    frames: T.
    size: S, the side of a frame.
    crop: C, the side of the crops.
    random: draws everything.
  """
  N = len(drawings)
  behind = background(random, size)
  sides = np.round(size * random.uniform(*_SIDE, N)).astype(int)
  place = random.uniform(0, size - sides, (2, N))
  speed = size * random.uniform(-_SPEED, _SPEED, (2, N))
  video = Video(
    np.empty((frames, size, size, 3), np.uint8),
    np.empty((frames, N, 4), np.int32),
    np.empty((frames, N, crop, crop, 3), np.uint8),
    np.zeros((frames, N), bool),
  )
  for t in range(frames):
    frame, owner = behind.copy(), np.full((size, size), -1)
    areas = np.zeros(N)
    for n, side in enumerate(sides):
      top, left = np.round(place[:, n]).astype(int)
      drawing = drawings[n][random.integers(len(drawings[n]))]
      covered = paste(frame, drawing, top, left, side)
      owner[top : top + side, left : left + side][covered] = n
      areas[n] = covered.sum()
      video.boxes[t, n] = top, left, top + side, left + side
    video.frames[t] = frame
    for n, (top, left, bottom, right) in enumerate(video.boxes[t]):
      video.crops[t, n] = scaled(frame[top:bottom, left:right], crop)
      video.seen[t, n] = (owner == n).sum() >= _VISIBLE * max(areas[n], 1)
    place += speed
    outside = (place < 0) | (place > size - sides)
    speed = np.where(outside, -speed, speed)
    place = np.clip(place, 0, size - sides)
  return video
