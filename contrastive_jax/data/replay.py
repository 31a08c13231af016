"""A replay buffer: a uniform sample of a stream, as pure functions of a pytree.

The buffer is part of the train state, so that checkpoints hold it and a resumed run replays what
an undisturbed one does.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Buffer(NamedTuple):
  """Rows of a stream.

  Attributes:
    rows: a tree of arrays [N, …], the fields of N rows; zeros where there is none yet.
    seen: int32, the number of rows that were added.
  """

  rows: Any
  seen: jax.Array


def init(capacity: int, row: Any) -> Buffer:
  """Returns an empty buffer.

  Args:
    capacity: N, the number of rows that it holds.
    row: one row, a tree of arrays or of `jax.ShapeDtypeStruct`, for the shapes and dtypes.

  Raises:
    ValueError: if the capacity is below 1.

  >>> init(3, {'label': jax.ShapeDtypeStruct((), jnp.int32)}).rows
  {'label': Array([0, 0, 0], dtype=int32)}
  """
  if capacity < 1:
    raise ValueError(f'capacity = {capacity} rows of a replay buffer; use 1 or more')
  empty = lambda field: jnp.zeros((capacity, *field.shape), field.dtype)  # noqa: E731
  return Buffer(jax.tree.map(empty, row), jnp.int32(0))


def capacity(buffer: Buffer) -> int:
  """N, the number of rows that a buffer holds."""
  return len(jax.tree.leaves(buffer.rows)[0])


def filled(buffer: Buffer) -> jax.Array:
  """Which rows hold an example, booleans [N]."""
  return jnp.arange(capacity(buffer)) < buffer.seen


def add(buffer: Buffer, rows: Any, key: jax.Array) -> Buffer:
  """Adds B rows of the stream by reservoir sampling [1].

  Row t of the stream, from 0, fills an empty place, or replaces each of the N with a probability of
  1 / (t + 1): the buffer is a uniform sample of all rows so far. The choice depends on the key and
  t alone, so that rows may be added in parts.

  Args:
    buffer: the buffer.
    rows: a tree of arrays [B, …] with its fields.
    key: a random key.

  Returns:
    The new buffer.

  Raises:
    ValueError: if the rows have other fields, shapes or dtypes.

  References:
    [1] Vitter, Random Sampling with a Reservoir, 1985, algorithm R.
  """
  forms = [
    jax.tree.map(lambda a: (a.shape[1:], a.dtype.name), each) for each in (rows, buffer.rows)
  ]
  sizes = {len(array) for array in jax.tree.leaves(rows)}
  if forms[0] != forms[1] or len(sizes) != 1:
    raise ValueError(f'rows {forms[0]} of {sorted(sizes)} examples; this buffer takes {forms[1]}')
  N, B = capacity(buffer), sizes.pop()
  number = buffer.seen + jnp.arange(B)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number)
  drawn = jax.vmap(lambda key, t: jax.random.randint(key, (), 0, t + 1))(keys, number)
  places = jnp.where(number < N, number, drawn)
  # Places that a later row of the batch takes stay free for it: of equal indices a scatter writes
  # any one.
  last = jnp.full(N, -1).at[places].max(jnp.arange(B), mode='drop')
  places = jnp.where(last.at[places].get(mode='fill', fill_value=-1) == jnp.arange(B), places, N)
  write = lambda table, new: table.at[places].set(new, mode='drop')  # noqa: E731
  return Buffer(jax.tree.map(write, buffer.rows, rows), buffer.seen + B)


def sample(buffer: Buffer, key: jax.Array, count: int) -> Any:
  """Draws rows at random without replacement.

  Args:
    buffer: the buffer. One with fewer rows than `count` repeats them in turn; an empty one gives
      zeros.
    key: a random key.
    count: M, how many to draw.

  Returns:
    A tree of arrays [M, …].

  Raises:
    ValueError: unless the count is from 1 to N.
  """
  N = capacity(buffer)
  if not 1 <= count <= N:
    raise ValueError(f'count = {count} of a replay buffer of {N} rows; use 1 to {N}')
  _, order = jax.lax.top_k(jnp.where(filled(buffer), jax.random.uniform(key, (N,)), -1.0), count)
  present = jnp.clip(buffer.seen, 1, count)
  chosen = order[jnp.arange(count) % present]
  return jax.tree.map(lambda table: table[chosen], buffer.rows)
