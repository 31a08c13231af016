"""The order of examples that reads shards in long stretches, with a shuffle buffer."""

from collections.abc import Sequence

import grain
import numpy as np

# Examples per stretch of a shard that a lane reads at a time.
_MIN_STRETCH = 64


class ShardOrder(grain.MapDataset):
  """Numbers of examples by position, each once per epoch, in the order of shuffled shards.

  An epoch lays the shards end to end in a random order. The rows of a batch are split into lanes of
  consecutive rows; each lane reads a section of its own from the epoch's sequence, window after
  window, and takes the examples of a window in random order. The windows of all lanes together are
  the shuffle buffer. As in a stream through a buffer, a batch mixes examples of many shards, but
  examples of a window stay close in time.

  The number at a position depends on the position, the seed, the batch size and the buffer alone. A
  process, or a worker, that prepares some rows of each batch reads the sections of their lanes.

  Attributes:
    stretch: number of consecutive examples that a lane reads at a time.
    lane_rows: number of rows per lane.
  """

  def __init__(
    self,
    parent: grain.MapDataset,
    shard_sizes: Sequence[int],
    *,
    seed: int,
    batch_size: int,
    buffer: int,
  ):
    """Reads nothing.

    Args:
      parent: the numbers of N examples, repeated.
      shard_sizes: number of consecutive examples per shard; they sum to N.
      seed: seed of the order.
      batch_size: B.
      buffer: number of examples in the windows of all lanes, rounded down to full batches; at least
        one batch.
    """
    super().__init__(parent)
    self._sizes, self._examples = np.asarray(shard_sizes, np.int64), int(sum(shard_sizes))
    self._seed, self._batch_size = seed, batch_size
    self._window = max(buffer // batch_size, 1)  # in batches
    needed = min(-(-_MIN_STRETCH // self._window), batch_size)
    self.lane_rows = next(n for n in range(needed, batch_size + 1) if batch_size % n == 0)
    self.stretch = self._window * self.lane_rows
    self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    # The permutation of each lane's window, by lane, with epoch and window.
    self._permutations: dict[int, tuple[tuple[int, int], np.ndarray]] = {}

  def __len__(self) -> int:
    return len(self._parent)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    epoch, position = divmod(index, self._examples)
    ends, shifts = self._order(epoch)
    place = self._place(epoch, position)
    return place + int(shifts[np.searchsorted(ends, place, side='right')])

  def _place(self, epoch: int, position: int) -> int:
    """Returns the place in the epoch's sequence of shards of the example at a position."""
    batch, row = divmod(position, self._batch_size)
    batches = self._examples // self._batch_size
    lane, inner = divmod(row, self.lane_rows)
    # Windows of the lanes end at different batches, which spreads their reads over time.
    phase = lane * self.lane_rows * self._window // self._batch_size
    window = (batch + phase) // self._window
    first = max(window * self._window - phase, 0)
    last = min((window + 1) * self._window - phase, batches)
    start = (lane * batches + first) * self.lane_rows
    size, index = (last - first) * self.lane_rows, (batch - first) * self.lane_rows + inner
    if batch == batches:  # the rest of the epoch fills part of a batch
      lane = window = -1
      start = batches * self._batch_size
      size, index = self._examples - start, row
    kept = self._permutations.get(lane)
    if kept is None or kept[0] != (epoch, window):
      # The lane of the rest, -1, is 0 here: seeds are not negative.
      permutation = np.random.default_rng([self._seed, epoch, lane + 1, window + 1]).permutation
      kept = self._permutations[lane] = (epoch, window), permutation(size)
    return start + int(kept[1][index])

  def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of an epoch's shards in its sequence, and example minus place in each."""
    if (found := self._orders.get(epoch)) is None:
      order = np.random.default_rng([self._seed, epoch]).permutation(len(self._sizes))
      ends = np.cumsum(self._sizes[order])
      firsts = (np.cumsum(self._sizes) - self._sizes)[order]
      found = ends, firsts - (ends - self._sizes[order])
      # A batch may lie in two epochs.
      self._orders = {key: kept for key, kept in self._orders.items() if abs(key - epoch) == 1}
      self._orders[epoch] = found
    return found
