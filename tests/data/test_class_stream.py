import numpy as np
import pytest

from contrastive_jax.data.class_stream import order_stream

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3, 5], [9, 8, 7, 6, 5]))


def test_each_example_comes_at_most_once_and_with_its_task():
  stream = order_stream(LABELS, tasks=3, batch_size=4, seed=0)
  assert [len(own) for own in stream.classes] == [2, 2, 1]
  assert sorted(np.concatenate(stream.classes)) == [0, 1, 2, 3, 5]
  assert len(set(stream.numbers.ravel())) == stream.numbers.size
  for rows, task in zip(stream.numbers, stream.tasks, strict=True):
    assert set(LABELS[rows]) <= set(stream.classes[task])
  for task, own in enumerate(stream.classes):
    assert np.sum(stream.tasks == task) == np.isin(LABELS, own).sum() // 4
  starts = np.concatenate([[0], stream.ends[:-1]])
  np.testing.assert_array_equal(
    stream.positions, np.arange(len(stream.tasks)) - starts[stream.tasks]
  )


def test_the_seed_decides_the_order():
  streams = [order_stream(LABELS, tasks=2, batch_size=3, seed=seed) for seed in (1, 1, 2)]
  np.testing.assert_array_equal(streams[0].numbers, streams[1].numbers)
  assert not np.array_equal(streams[0].numbers, streams[2].numbers)


@pytest.mark.parametrize(
  ('tasks', 'batch_size', 'message'),
  [
    (6, 1, r'config\.tasks = 6 of 5 classes; use 1 to 5'),
    (0, 1, r'config\.tasks = 0 of 5 classes'),
    (5, 10, r'config\.batch_size = 10 exceeds the \d examples of task 0'),
  ],
)
def test_a_task_without_a_batch_is_refused(tasks, batch_size, message):
  with pytest.raises(ValueError, match=message):
    order_stream(LABELS, tasks=tasks, batch_size=batch_size, seed=0)
