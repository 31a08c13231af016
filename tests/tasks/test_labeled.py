import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.tasks.labeled import read_labeled

TRAIN, TEST = 'train[vendor=noto,skin_tone=]', 'heldout_style[skin_tone=]'


def test_labels_of_another_split_have_the_same_numbers():
  train = read_labeled('emoji', TRAIN, 'group', size=8)
  classes = train.classes[::-1]
  test = read_labeled('emoji', TEST, 'group', size=8, classes=classes)
  values = data.open_source('emoji', TEST).values('group')
  assert [classes[label] for label in test.labels] == list(values)
  assert train.images.shape == (len(train.labels), 8, 8, 3) and train.images.dtype == np.uint8


def test_classes_are_selected_and_numbered_anew():
  found = read_labeled('emoji', TRAIN, 'group', size=8)
  kept = found.of(('objects', 'flags'))
  names = [found.classes[label] for label in found.labels]
  assert len(kept.labels) == sum(name in ('objects', 'flags') for name in names)
  assert [kept.classes[label] for label in kept.labels] == [n for n in names if n in kept.classes]
  rows = [row for row, name in enumerate(names) if name in kept.classes]
  np.testing.assert_array_equal(kept.images[[0, -1]], found.images[[rows[0], rows[-1]]])
  assert len(kept.images) == len(rows)


def test_a_class_that_training_lacks_is_an_error():
  message = r"split 'heldout_style\[.*' has the group '.*', which the training split lacks"
  with pytest.raises(ValueError, match=message):
    read_labeled('emoji', TEST, 'group', size=8, classes=('flags',))
