"""Batches of a stream of examples, prepared by this process, its threads or worker processes."""

import functools
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, Protocol

import cloudpickle
import grain
import numpy as np
from absl import flags, logging

from contrastive_jax.data.batch_shapes import BatchShape, BatchShapes
from contrastive_jax.data.patches import Patches
from contrastive_jax.data.shared_memory import Slots, _shared_file

# Share of bad examples above which the run stops, out of at least `_MIN_COUNTED_EXAMPLES` examples.
_MAX_BAD_SHARE = 0.01
_MIN_COUNTED_EXAMPLES = 10_000
# Consecutive bad examples at one row of the batch, above which the run stops.
_MAX_BAD_IN_A_ROW = 20
# Arrays of at least this many bytes pass through shared memory, smaller ones through a pipe.
_MIN_SHARED_BYTES = 2**20
# Examples per pass through a stage; more would only hold more encoded images in memory.
_CHUNK_EXAMPLES = 64
# Wait per example above which a pool of threads reads: on a busy CPU a read from disk waits less.
_MAX_WAIT_SECONDS = 0.002
_READER_THREADS = 32


class BadExamples:
  """Counts bad examples, logs each one, and stops the run when there are too many.

  Attributes:
    seen: number of examples, bad ones included.
    skipped: number of bad examples.
    truncated: number of captions cut at the tokenizer's length.
  """

  def __init__(self, examples: int, tolerated: float = _MAX_BAD_SHARE):
    """Starts the counts at zero.

    Args:
      examples: number of examples per epoch.
      tolerated: share of bad examples above which a call raises ValueError. The share is of the
        examples seen, or of the first 10,000 (or the epoch, if smaller) until as many were seen.
    """
    self.seen = self.skipped = self.truncated = 0
    self._min_counted = min(examples, _MIN_COUNTED_EXAMPLES)
    self._tolerated = tolerated

  def __call__(self, example: Mapping[str, Any]) -> bool:
    """Counts an example; returns whether it is good."""
    self.seen += 1
    if 'error' not in example:
      return True
    self.skipped += 1
    logging.warning('skipped example %s: %s', example['id'], example['error'])
    if self.skipped > self._tolerated * max(self.seen, self._min_counted):
      raise ValueError(
        f'{self.skipped} of {self.seen} examples cannot be used, over {self._tolerated:.0%}; '
        f'the last is {example["id"]}: {example["error"]}'
      )
    return False


class ExampleTransform(Protocol):
  """Turns examples, dicts with an `id`, into the arrays that the model takes.

  Attributes:
    image_size: S, the side of the images; None without images.
  """

  image_size: int | None

  def pixels(self, drawn: Mapping[str, Any], shape: BatchShape) -> Sequence[np.ndarray]:
    """Returns the image, (uint8 [S, S, 3],), or its `Patches`; () without images.

    Raises:
      ValueError: if the image is bad.
    """

  def columns(self, drawn: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Returns the other arrays of good examples by name, each [b, ...], `truncated` among them."""


class ProcessBatches(grain.MapDataset):
  """Batches of the parent's stream of examples, cut to the rows that one process feeds.

  The content and order of a batch are the same for any number of processes and any mesh. A bad
  example is replaced by the one a round later, with square images the same row of the next batch,
  and listed under `errors`. With several `parts`, item t * parts + i is the i-th part of these rows
  of batch t.
  """

  def __init__(
    self,
    parent: grain.MapDataset,
    transform: ExampleTransform,
    rows: Mapping[int, np.ndarray],
    shapes: BatchShapes,
    parts: int = 1,
    slots: 'Slots | None' = None,
  ):
    """Feeds `rows` [b], by the batch size, of each batch; images go to `slots` if given."""
    super().__init__(parent)
    self._transform, self._shapes, self._slots = transform, shapes, slots
    self._rows = {size: np.array_split(own, parts) for size, own in rows.items()}
    self._parts = parts
    self._reads_wait = False

  def __getstate__(self) -> dict[str, Any]:
    # A file carries the state: a worker that dies at its start would leave a pipe full, and the
    # writer blocked.
    path = _shared_file(self)
    with open(path, 'wb') as file:
      cloudpickle.dump(vars(self), file)
    return {'path': path}

  def __setstate__(self, state: dict[str, Any]):
    with open(state['path'], 'r+b') as file:
      vars(self).update(cloudpickle.load(file))
      file.truncate(0)  # frees the memory: the file is read once

  def __len__(self) -> int:
    rounds = len(self._parent) // self._shapes.per_round - _MAX_BAD_IN_A_ROW
    return rounds * len(self._shapes.shapes) * self._parts

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    batch, part = divmod(index, self._parts)
    shape = self._shapes.at(batch)
    positions = (self._shapes.first(batch) + self._rows[shape.batch_size][part]).tolist()
    taken = self._slots and self._slots.take(index)
    images = {'image': taken[1]} if taken else self._empty(len(positions), shape)
    examples, chunks, errors = self._read(positions), [], []
    for first in range(0, len(positions), _CHUNK_EXAMPLES):
      chunk = slice(first, first + _CHUNK_EXAMPLES)
      drawn = [*itertools.islice(examples, _CHUNK_EXAMPLES)]
      own = [array[chunk] for array in images.values()]
      chunks.append(self._fill(own, shape, positions[chunk], drawn, errors))
    columns = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return ({'slot': taken[0]} if taken else images) | {'errors': errors} | columns

  def _empty(self, count: int, shape: BatchShape) -> dict[str, np.ndarray]:
    """Returns unfilled arrays for images by name: 'image', or the fields of `Patches`."""
    if (side := self._transform.image_size) is None:
      return {}
    if not shape.length:
      return {'image': np.empty([count, side, side, 3], np.uint8)}
    pixels = np.empty([count, shape.length, shape.patch, shape.patch, 3], np.uint8)
    return Patches(pixels, np.empty([count, 2], np.int32))._asdict()

  def _read(self, positions: list[int]) -> Iterator[Mapping[str, Any]]:
    """Reads examples in order, by a pool of threads if reads turn out to wait, as for a bucket."""
    while positions and not self._reads_wait:
      part, positions = positions[:_CHUNK_EXAMPLES], positions[_CHUNK_EXAMPLES:]
      start = time.perf_counter() - time.thread_time()
      drawn = [self._parent[position] for position in part]
      waited = time.perf_counter() - time.thread_time() - start
      self._reads_wait = waited > _MAX_WAIT_SECONDS * len(part)
      yield from drawn
    if positions:
      with futures.ThreadPoolExecutor(_READER_THREADS) as pool:
        yield from pool.map(self._parent.__getitem__, positions)

  def _fill(self, images, shape, positions, drawn, errors) -> dict[str, np.ndarray]:
    """Fills some rows of a batch, one stage after the other.

    Python code that runs repeatedly stays in the CPU's caches. Between two images, which evict it,
    the same code takes two or three times as long.
    """
    for row, position in enumerate(positions):
      try:
        pixels = self._transform.pixels(drawn[row], shape)
      except ValueError as error:
        errors.append({'id': drawn[row]['id'], 'error': str(error)})
        drawn[row], pixels = self._replacement(position, shape)
      for array, value in zip(images, pixels, strict=True):
        array[row] = value
    return self._transform.columns(drawn)

  def _replacement(self, position: int, shape: BatchShape):
    """Returns the first good example that stands in for the one at a position, and its image."""
    for turn in range(1, _MAX_BAD_IN_A_ROW):
      drawn = self._parent[position + turn * self._shapes.per_round]
      try:
        return drawn, self._transform.pixels(drawn, shape)
      except ValueError as error:
        last = f'{drawn["id"]}: {error}'
    raise ValueError(f'{_MAX_BAD_IN_A_ROW} examples in a row cannot be used; the last is {last}')


class Batches:
  """An endless iterator over batches that can be set to any of them.

  Attributes:
    bad_examples: counts the bad examples of the batches returned so far.
  """

  def __init__(
    self,
    drawn: grain.MapDataset,
    transform: ExampleTransform,
    rows: Mapping[int, np.ndarray],
    bad_examples: BadExamples,
    *,
    shapes: BatchShapes,
    threads: int,
    workers: int,
    split_rows: bool = False,
  ):
    """Prepares `ProcessBatches` of the examples in threads or in worker processes.

    Workers take turns at batches. With `split_rows` each prepares the same rows of every batch.
    """
    fewest = min(map(len, rows.values()))
    self._parts = min(workers, fewest) if split_rows and workers else 1
    self._items = functools.partial(ProcessBatches, drawn, transform, rows, shapes, self._parts)
    # Slots are of one shape; patches pass through grain's shared memory instead.
    side = 0 if shapes.shapes[0].length else transform.image_size
    self._shape = side and (-(-fewest // self._parts), side, side, 3)
    self._threads, self._workers = threads, workers
    self._next, self._ahead, self._slots = 0, None, None
    self.bad_examples = bad_examples

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._ahead is None:
      self._ahead = self._read_ahead()
    items = [self._item() for _ in range(self._parts)]
    self._next += 1
    errors = [error for item in items for error in item.pop('errors')]
    batch = items[0]
    if len(items) > 1:
      batch = {name: np.concatenate([item[name] for item in items]) for name in batch}
    if 'grid' in batch:
      batch = {'image': Patches(batch.pop('pixels'), batch.pop('grid')), **batch}
    self.bad_examples.truncated += int(batch.pop('truncated').sum())
    self.bad_examples.seen += len(batch['id']) - len(errors)
    for error in errors:
      self.bad_examples(error)
    return batch

  def _item(self) -> dict[str, Any]:
    """Returns the next item of `ProcessBatches`, with its images."""
    try:
      item = next(self._ahead)
    except RuntimeError as error:
      if 'process was terminated unexpectedly' not in str(error):
        raise
      self.close()
      raise RuntimeError(
        f'a worker of config.data.workers = {self._workers} has died: {error} Workers import the '
        'main module anew: keep what a script runs under `if __name__ == "__main__":`, and write '
        'code from standard input to a file, or use workers=0'
      ) from error
    if 'slot' in item:
      item['image'] = self._slots.lend(item.pop('slot'))[: len(item['id'])]
    return item

  def _read_ahead(self):
    options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=2 * self._threads)
    shared = self._shape and self._workers and not self._threads and hasattr(os, 'memfd_create')
    self._slots = Slots(self._workers, self._shape) if shared else None
    batches = self._items(self._slots)[self._next * self._parts :].to_iter_dataset(options)
    if self._workers:
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain passes the parsed flags to its workers.
      options = grain.experimental.DatasetOptions(min_shm_size=_MIN_SHARED_BYTES)
      batches = grain.experimental.WithOptionsIterDataset(batches, options)
      batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
    return iter(batches)

  def get_state(self) -> dict[str, int]:
    """Returns the number of the next batch."""
    return {'batch': self._next}

  def set_state(self, state: dict[str, int]) -> None:
    """Continues at a state from `get_state`, of any number of processes, threads and workers."""
    self.close()
    self._next = state['batch']

  def close(self) -> None:
    """Stops the prefetch; the next batch restarts it."""
    if self._ahead is not None:
      self._ahead.close()
      self._ahead = None
