import numpy as np

from contrastive_jax.data.videos import compose_video


def drawings(count, side=16):
  """Per instance, two squares of one color each on white."""
  found = np.full((count, 2, side, side, 3), 255, np.uint8)
  for n in range(count):
    found[n, :, 2:-2, 2:-2] = 4 * n
    found[n, 1, 4:-4, 4:-4, 0] = 200
  return list(found)


def make(count=3, seed=0):
  options = {'frames': 5, 'size': 64, 'crop': 8, 'random': np.random.default_rng(seed)}
  return compose_video(drawings(count), **options)


def test_a_video_is_a_function_of_its_seed():
  one, same, other = make(), make(), make(seed=1)
  for a, b in zip(one, same, strict=True):
    np.testing.assert_array_equal(a, b)
  assert np.any(one.frames != other.frames)


def test_crops_are_what_the_boxes_hold_and_boxes_move_within_the_frame():
  video = make()
  top, left, bottom, right = np.moveaxis(video.boxes, -1, 0)
  assert (top >= 0).all() and (left >= 0).all() and (bottom <= 64).all() and (right <= 64).all()
  assert (bottom - top == right - left).all() and np.any(top[0] != top[-1])
  # The instance in front is covered by none: its crop has its color.
  assert video.seen[:, 2].all()
  center = video.crops[:, 2, 2, 2]
  assert (np.abs(np.int32(center[:, 1:]) - 8) < 8).all()


def test_what_is_covered_is_not_seen():
  video = compose_video(drawings(60), frames=2, size=40, crop=8, random=np.random.default_rng(0))
  assert 0 < video.seen.mean() < 0.6 and video.seen[:, -1].all()
