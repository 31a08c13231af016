"""Batches of a stream of examples, made by this process, by its threads, or by others."""

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

from contrastive_jax.data.shared_memory import Slots, _shared_file

# Of the examples seen, or of the first ones, this share may be bad.
_TOLERATED = 0.01
_FIRST = 10_000
# More bad ones than this in a row are no accident.
_BAD_IN_A_ROW = 20
# Bytes of an array that a worker sends as it is.
_SMALL = 2**20
# Examples that go through a stage together: more would only keep more encoded pictures in memory.
_TOGETHER = 64
# Seconds that reading an example may wait, as busy processors let it, before more read at a time.
_WAIT = 0.002
_READERS = 32


class Skips:
  """Counts the bad examples, names them in the log, and stops the run when they are too many.

  Attributes:
    seen: examples, bad ones too.
    skipped: of them the bad ones.
    truncated: captions that were too long for the tokenizer, and lost their ends.
  """

  def __init__(self, examples: int, tolerated: float = _TOLERATED):
    """Starts from none.

    Args:
      examples: in one pass over the data.
      tolerated: share of the examples seen, or of the first ones, that may be bad.
    """
    self.seen = self.skipped = self.truncated = 0
    self._first = min(examples, _FIRST)
    self._tolerated = tolerated

  def __call__(self, example: Mapping[str, Any]) -> bool:
    """True for a good example."""
    self.seen += 1
    if 'error' not in example:
      return True
    self.skipped += 1
    logging.warning('skipped example %s: %s', example['id'], example['error'])
    if self.skipped > self._tolerated * max(self.seen, self._first):
      raise ValueError(
        f'{self.skipped} of {self.seen} examples cannot be used, over {self._tolerated:.0%}; '
        f'the last is {example["id"]}: {example["error"]}'
      )
    return False


class Show(Protocol):
  """What the model is shown of an example that was drawn, a dict with its `id`.

  Attributes:
    image_size: S, the side of the pictures.
  """

  image_size: int

  def pixels(self, drawn: Mapping[str, Any]) -> np.ndarray:
    """uint8 [S, S, 3]; ValueError if the example is a bad one."""

  def texts(self, drawn: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The rest of a batch of good ones, an array [b, ...] by each name, `truncated` among them."""


class Rows(grain.MapDataset):
  """The batches of the parent's stream of examples, of each the rows that one process feeds.

  What a batch holds, and in which order, hangs neither on the number of processes nor on the mesh.
  For a bad example stands that of the same row in the next batch; `errors` names the bad ones.
  """

  def __init__(
    self,
    parent: grain.MapDataset,
    show: Show,
    rows: np.ndarray,
    batch_size: int,
    slots: 'Slots | None' = None,
  ):
    """Of batches of `batch_size` of the drawn examples the rows [b], their pictures in slots."""
    super().__init__(parent)
    self._show, self._rows, self._batch_size, self._slots = show, rows, batch_size, slots
    self._waits = False

  def __getstate__(self) -> dict[str, Any]:
    # By a file: a worker that dies as it starts leaves the pipe to it full, and who writes waiting.
    path = _shared_file(self)
    with open(path, 'wb') as file:
      cloudpickle.dump(vars(self), file)
    return {'path': path}

  def __setstate__(self, state: dict[str, Any]):
    with open(state['path'], 'r+b') as file:
      vars(self).update(cloudpickle.load(file))
      file.truncate(0)  # It is read once, and its memory is free.

  def __len__(self) -> int:
    return len(self._parent) // self._batch_size - _BAD_IN_A_ROW

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    places = (index * self._batch_size + self._rows).tolist()
    taken = self._slots and self._slots.take(index)
    side = self._show.image_size
    pictures = taken[1] if taken else np.empty([len(places), side, side, 3], np.uint8)
    examples, parts, errors = self._read(places), [], []
    for first in range(0, len(places), _TOGETHER):
      part = slice(first, first + _TOGETHER)
      drawn = [*itertools.islice(examples, _TOGETHER)]
      parts.append(self._fill(pictures[part], places[part], drawn, errors))
    texts = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    image = {'slot': taken[0]} if taken else {'image': pictures}
    return image | {'errors': errors} | texts

  def _read(self, places: list[int]) -> Iterator[Mapping[str, Any]]:
    """The drawn examples, many at a time if reading is found to wait, as for a bucket."""
    while places and not self._waits:
      part, places = places[:_TOGETHER], places[_TOGETHER:]
      start = time.perf_counter() - time.thread_time()
      drawn = [self._parent[place] for place in part]
      waited = time.perf_counter() - time.thread_time() - start
      self._waits = waited > _WAIT * len(part)
      yield from drawn
    if places:
      with futures.ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(self._parent.__getitem__, places)

  def _fill(self, pictures, places, drawn, errors) -> dict[str, np.ndarray]:
    """Some rows of a batch, stage by stage.

    Code that runs again and again is in the processor's caches. Between two pictures, which sweep
    them, the same code takes two or three times as long.
    """
    for row, place in enumerate(places):
      try:
        pictures[row] = self._show.pixels(drawn[row])
      except ValueError as error:
        errors.append({'id': drawn[row]['id'], 'error': str(error)})
        drawn[row], pictures[row] = self._stand_in(place)
    return self._show.texts(drawn)

  def _stand_in(self, place: int) -> tuple[Mapping[str, Any], np.ndarray]:
    for batch in range(1, _BAD_IN_A_ROW):
      drawn = self._parent[place + batch * self._batch_size]
      try:
        return drawn, self._show.pixels(drawn)
      except ValueError as error:
        last = f'{drawn["id"]}: {error}'
    raise ValueError(f'{_BAD_IN_A_ROW} examples in a row cannot be used; the last is {last}')


class Batches:
  """Endless batches, which can be set to go on at any.

  Attributes:
    skips: counts the bad examples of the batches that were given out.
  """

  def __init__(
    self,
    drawn: grain.MapDataset,
    show: Show,
    rows: np.ndarray,
    skips: Skips,
    *,
    batch_size: int,
    threads: int,
    workers: int,
  ):
    """Of `Rows` of the drawn examples, made by threads, or by worker processes."""
    self._rows = functools.partial(Rows, drawn, show, rows, batch_size)
    self._shape = (len(rows), show.image_size, show.image_size, 3)
    self._threads, self._workers = threads, workers
    self._next, self._ahead, self._slots = 0, None, None
    self.skips = skips

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._ahead is None:
      self._ahead = self._read_ahead()
    try:
      batch = next(self._ahead)
    except RuntimeError as error:
      if 'process was terminated unexpectedly' not in str(error):
        raise
      self.close()
      raise RuntimeError(
        f'a worker of config.data.workers = {self._workers} has died: {error} Workers import the '
        'main module anew: keep what a script runs under `if __name__ == "__main__":`, and write '
        'code from standard input to a file, or use workers=0'
      ) from error
    if 'slot' in batch:
      batch['image'] = self._slots.lend(batch.pop('slot'))
    self._next += 1
    errors = batch.pop('errors')
    self.skips.truncated += int(batch.pop('truncated').sum())
    self.skips.seen += len(batch['id']) - len(errors)
    for error in errors:
      self.skips(error)
    return batch

  def _read_ahead(self):
    options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=2 * self._threads)
    shared = self._workers and not self._threads and hasattr(os, 'memfd_create')
    self._slots = Slots(self._workers, self._shape) if shared else None
    batches = self._rows(self._slots)[self._next :].to_iter_dataset(options)
    if self._workers:
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain hands the flags of a program on to its workers.
      # What is smaller goes through a pipe at less cost than a piece of shared memory has.
      options = grain.experimental.DatasetOptions(min_shm_size=_SMALL)
      batches = grain.experimental.WithOptionsIterDataset(batches, options)
      batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
    return iter(batches)

  def get_state(self) -> dict[str, int]:
    """The place: the number of the next batch."""
    return {'batch': self._next}

  def set_state(self, state: dict[str, int]) -> None:
    """Goes on at the place of a `get_state`, of any number of processes, threads and workers."""
    self.close()
    self._next = state['batch']

  def close(self) -> None:
    """Ends what reads ahead; the next batch starts it anew."""
    if self._ahead is not None:
      self._ahead.close()
      self._ahead = None
