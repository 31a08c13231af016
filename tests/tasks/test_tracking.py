"""Tracking: items of the bank and of one frame, and the share of right associations."""

import jax
import numpy as np
import pytest
from PIL import Image

from configs.methods import ctvis
from contrastive_jax import tasks
from contrastive_jax.tasks import tracking

DRAWN = np.random.default_rng(0)
SEEN = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1], [1, 1, 1]], bool)
FEATURES = DRAWN.normal(size=(4, 3, 5)).astype(np.float32)
items_of_bank = jax.jit(tracking._items_of_bank, static_argnames='momentum')


def test_positives_of_the_bank_are_the_last_seen_or_the_first_later_one():
  key = jax.random.key(0)
  found = items_of_bank(key, FEATURES, SEEN, momentum=0.0)
  anchors, positives, negatives, valid, negative_valid = map(np.asarray, found)
  np.testing.assert_array_equal(anchors, FEATURES[1:])
  np.testing.assert_array_equal(positives[0, 0, 0], FEATURES[0, 0])
  np.testing.assert_array_equal(positives[2, 0, 0], FEATURES[1, 0])  # not seen in the frame before
  np.testing.assert_array_equal(positives[1, 2, 0], FEATURES[0, 2])
  np.testing.assert_array_equal(positives[1, 1, 0], FEATURES[3, 1])  # first seen in this frame
  np.testing.assert_array_equal(valid[..., 0], SEEN[1:])
  np.testing.assert_array_equal(negatives[2, 0], FEATURES[2])
  np.testing.assert_array_equal(negative_valid[2, 0], [False, True, True])
  assert not negative_valid[0, 1].any(), 'an instance that is not seen has no item'


def test_with_momentum_positives_are_those_of_the_bank():
  key = jax.random.key(0)
  positives = items_of_bank(key, FEATURES, SEEN, momentum=1.0)[1]
  bank = jax.jit(tracking.momentum_bank)(FEATURES, SEEN)
  np.testing.assert_allclose(positives[2, 0, 0], bank[2, 0], rtol=1e-6)


def test_items_of_a_frame_are_of_another_frame():
  key = jax.random.key(0)
  items_of_frame = jax.jit(tracking._items_of_frame, static_argnames='momentum')
  found = items_of_frame(key, FEATURES, SEEN, momentum=0.0)
  _, positives, negatives, *_ = map(np.asarray, found)
  for t in range(3):
    (other,) = [k for k in range(4) if np.array_equal(positives[t, :, 0], FEATURES[k])]
    assert other != t + 1
    np.testing.assert_array_equal(negatives[t, 0], FEATURES[other])


def test_constant_embeddings_associate_and_swapped_ones_do_not():
  own = np.broadcast_to(10 * np.eye(3, 5), (4, 3, 5)).astype(np.float32)
  assert tracking.accuracy(tracking.associate(own, SEEN)) == 1
  everything = np.ones((4, 3), bool)
  swapped = own.copy()
  swapped[2] = own[2][[1, 0, 2]]
  # The bank keeps what it was, so the next frame is right again.
  assigned = tracking.associate(swapped, everything)
  np.testing.assert_array_equal(assigned[[0, 2, 3]], [[-1, -1, -1], [1, 0, 2], [0, 1, 2]])
  assert tracking.accuracy(assigned) == pytest.approx(1 - 2 / 9)


def test_a_run_measures_association(tmp_path):
  config = ctvis.get_config('smoke')
  results = tasks.open_task(config)(tmp_path)
  assert 0 <= results['association_accuracy'] <= 1
  with Image.open(tmp_path / tracking.PICTURE) as picture:
    assert picture.size == (96, 2 * 96 + 4)


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('reference', 'both', r"config\.reference = 'both' is unknown; use one of \('bank', 'frame'\)"),
    ('momentum', 1.5, r'config\.momentum = 1\.5; use a number in \[0, 1\]'),
    ('video.frames', 1, r'config\.video\.frames = 1; use an integer in \[2, inf\)'),
    ('video.instances', 9999, r'config\.video\.instances = 9999, and split .* use 2 to \d+'),
  ],
)
def test_what_cannot_work_is_named_before_anything_is_compiled(path, value, message):
  config = ctvis.get_config('smoke')
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=message):
    tasks.open_task(config)
