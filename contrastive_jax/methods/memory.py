"""Memory between steps: queues of embeddings, and tables with a row per example."""

import jax
import jax.numpy as jnp

from contrastive_jax.methods.method import Slot


def queue(length: int, width: int, batch: int, field: str = 'length') -> Slot:
  """A queue of unit vectors, which starts with random ones.

  It is kept as [B, length / B, D] with B sharded like a batch, so that each device writes its own
  rows of a batch in place.

  Args:
    length: Q, of the queue.
    width: D, of the vectors.
    batch: B, written per step.
    field: the option that gives the length, for the error.

  Raises:
    ValueError: if B does not divide the length.
  """
  if length < batch or length % batch:
    raise ValueError(
      f'{field} = {length} is not a multiple of config.batch_size = {batch}; use a multiple, such '
      f'as {max(1, length // batch) * batch}'
    )

  def init(key):
    vectors = jax.random.normal(key, (batch, length // batch, width))
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)

  return Slot((batch, length // batch, width), ('queue', None, None), init)


def entries(queue: jax.Array) -> jax.Array:
  """The vectors of a queue, [Q, D]."""
  return queue.reshape(-1, queue.shape[-1])


def enqueue(queue: jax.Array, rows: jax.Array, written: jax.Array) -> jax.Array:
  """Replaces the oldest vectors of a queue by the rows [B, D] of a batch.

  Args:
    queue: [B, Q / B, D].
    rows: [B, D].
    written: number of batches written so far.
  """
  return queue.at[:, written % queue.shape[1]].set(rows.astype(queue.dtype))


def table(examples: int, value: float) -> Slot:
  """A table of one number per example, which starts with a value."""
  return Slot((examples,), ('examples',), lambda key: jnp.full(examples, value))


def scatter_mean(table: jax.Array, ids: jax.Array, rows: jax.Array) -> jax.Array:
  """Writes rows [B, ...] into a table [N, ...] at ids [B]; rows of one id are averaged first.

  The sums are taken in an order that depends on the ids alone, so that the result is the same on
  every mesh and backend. Ids outside of the table are dropped.
  """
  order = jnp.argsort(ids, stable=True)
  ids, rows = ids[order], rows[order].astype(jnp.float32)
  counts = jnp.ones(ids.shape, jnp.float32)

  def join(left, right):
    """Sums within runs of one id: a later run starts anew."""
    same = left[0] == right[0]
    add = lambda a, b: b + jnp.where(_expand(same, b), a, 0)  # noqa: E731
    return right[0], add(left[1], right[1]), add(left[2], right[2])

  _, sums, counts = jax.lax.associative_scan(join, (ids, rows, counts))
  last = jnp.append(ids[1:] != ids[:-1], True)
  means = sums / _expand(counts, sums)
  return table.at[jnp.where(last, ids, len(table))].set(means.astype(table.dtype), mode='drop')


def _expand(array: jax.Array, like: jax.Array) -> jax.Array:
  return array.reshape(array.shape + (1,) * (like.ndim - array.ndim))
