import numpy as np
import pytest

from contrastive_jax.data.class_balanced import ClassBalanced

LABELS = np.array([5, 2, 2, 5, 9, 2, 5, 9, 2])


def test_batches_are_balanced_and_a_function_of_the_step():
  sample = ClassBalanced(LABELS, classes=2, examples=3, seed=1)
  batches = [sample(step) for step in range(20)]
  for rows in batches:
    labels = LABELS[rows].reshape(2, 3)
    assert np.all(labels == labels[:, :1]) and labels[0, 0] != labels[1, 0]
    for own in rows.reshape(2, 3):
      assert len(set(own)) == min(3, np.sum(LABELS[own[0]] == LABELS))
  np.testing.assert_array_equal(
    ClassBalanced(LABELS, classes=2, examples=3, seed=1)(19), batches[19]
  )
  assert len({tuple(rows) for rows in batches}) > 10


@pytest.mark.parametrize(
  ('classes', 'examples', 'message'),
  [(4, 2, 'classes = 4 per batch of 3; use 2 to 3'), (2, 1, 'examples = 1 per class; use 2')],
)
def test_sizes_that_cannot_work_are_refused(classes, examples, message):
  with pytest.raises(ValueError, match=message):
    ClassBalanced(LABELS, classes, examples)
