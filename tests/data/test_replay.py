"""A replay buffer holds a uniform sample of its stream, however the stream is cut into batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.data import replay

ROW = {'number': jax.ShapeDtypeStruct((), jnp.int32), 'pair': jax.ShapeDtypeStruct((2,), jnp.uint8)}


def rows(start, stop):
  number = np.arange(start, stop, dtype=np.int32)
  return {'number': number, 'pair': np.stack([number, number], 1).astype(np.uint8)}


ADD = jax.jit(replay.add)


@functools.partial(jax.jit, static_argnums=1)
def after(key, batch):
  """A buffer of 4 rows after the rows 1 to 12, added in batches."""
  buffer = replay.init(4, ROW)
  for start in range(1, 13, batch):
    buffer = replay.add(buffer, rows(start, start + batch), key)
  return buffer


def test_each_row_of_the_stream_is_kept_equally_often():
  keys = jax.random.split(jax.random.key(0), 4000)
  numbers = np.asarray(jax.jit(jax.vmap(lambda key: after(key, 6).rows['number']))(keys))
  assert all(len(set(kept)) == 4 for kept in np.asarray(numbers[:100]).tolist())
  counts = np.bincount(np.ravel(numbers), minlength=13)[1:] / 4000
  # Six standard deviations of a share of 1 / 3.
  np.testing.assert_allclose(counts, 1 / 3, atol=6 * (2 / 9 / 4000) ** 0.5)


def test_batches_of_any_size_leave_the_same_buffer():
  key = jax.random.key(1)
  whole, parts = map(jax.device_get, (after(key, 12), after(key, 3)))
  jax.tree.map(np.testing.assert_array_equal, whole, parts)
  assert whole.seen == 12
  np.testing.assert_array_equal(whole.rows['pair'][:, 0], whole.rows['number'])


def test_the_first_rows_fill_it_in_order():
  buffer = ADD(replay.init(5, ROW), rows(1, 4), jax.random.key(0))
  assert buffer.rows['number'].tolist() == [1, 2, 3, 0, 0]
  assert replay.filled(buffer).tolist() == [True, True, True, False, False]


def test_a_sample_repeats_no_row_unless_there_are_too_few():
  draw = jax.jit(jax.vmap(lambda key, buffer: replay.sample(buffer, key, 4)['number'], (0, None)))
  keys = jax.random.split(jax.random.key(0), 50)
  buffer = ADD(replay.init(5, ROW), rows(1, 4), jax.random.key(0))
  for few in np.asarray(draw(keys, buffer)):
    assert set(few.tolist()) == {1, 2, 3}
  drawn = np.asarray(draw(keys, ADD(buffer, rows(4, 7), jax.random.key(0))))
  assert all(len(set(each)) == 4 for each in drawn.tolist())
  assert len(set(drawn.ravel().tolist())) == 5 and 0 not in drawn
  assert not np.any(draw(keys, replay.init(5, ROW))), 'an empty buffer gives zeros'


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda buffer, key: replay.init(0, ROW), 'capacity = 0 rows'),
    (lambda buffer, key: replay.sample(buffer, key, 5), 'count = 5 of a replay buffer of 4 rows'),
    (lambda buffer, key: replay.sample(buffer, key, 0), 'count = 0 .* use 1 to 4'),
    (lambda buffer, key: replay.add(buffer, {'number': jnp.arange(3)}, key), 'this buffer takes'),
    (
      lambda buffer, key: replay.add(buffer, {**rows(0, 3), 'pair': jnp.ones((3, 2))}, key),
      'float32',
    ),
    (
      lambda buffer, key: replay.add(buffer, {**rows(0, 3), **{'number': jnp.arange(2)}}, key),
      '2, 3',
    ),
  ],
)
def test_what_does_not_fit_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call(replay.init(4, ROW), jax.random.key(0))
