"""Laws of the order of shards: a shuffle that reads files in long stretches."""

import collections
import contextlib
import io
import tarfile
import threading
import typing

import fsspec
import grain
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data.shard_order import ShardOrder
from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.read_ahead import ReadAhead

SHARDS, PER_SHARD, CAPTION_BYTES = 8, 130, 4_000
N = SHARDS * PER_SHARD


class Counted(MemoryFileSystem):
  """A bucket that counts requests and their bytes."""

  protocol = 'counted'
  store: typing.ClassVar[dict] = {}
  pseudo_dirs: typing.ClassVar[list] = ['']
  sizes: typing.ClassVar[list] = []

  @classmethod
  def _strip_protocol(cls, path):
    return MemoryFileSystem._strip_protocol(path.replace('counted://', 'memory://'))

  def cat_file(self, path, start=None, end=None, **options):
    content = super().cat_file(path, start=start, end=end, **options)
    self.sizes.append(len(content))
    return content


fsspec.register_implementation('counted', Counted, clobber=True)


@pytest.fixture(scope='module')
def bucket():
  """Shards of texts as large as small images, and the name to open them by."""
  system = fsspec.filesystem('counted')
  for shard in range(SHARDS):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
      for row in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
        caption = f'{row} '.ljust(CAPTION_BYTES, 'x').encode()
        member = tarfile.TarInfo(f'{row:05}.txt')
        member.size = len(caption)
        archive.addfile(member, io.BytesIO(caption))
    system.pipe_file(f'/pairs/{shard}.tar', buffer.getvalue())
  return 'webdataset:counted://pairs/{0..7}.tar'


def lengths(texts):
  return np.array([[len(text)] for text in texts], np.int32)


def open_batches(source, **options):
  options = {'shuffle': 'shards', 'batch_size': 16, 'shuffle_buffer': 256, 'seed': 0} | options
  return data.training_batches(
    source, lengths, captions={'caption': 1}, inputs=('tokens',), threads=0, **options
  )[0]


def open_source(bucket):
  source = data.open_source(bucket, 'train')
  source.cached = False  # as large data
  return source


def take(batches, count):
  return [next(batches)['id'] for _ in range(count)]


def make_order(sizes, batch_size, buffer, seed=0):
  parent = grain.MapDataset.range(sum(sizes)).seed(seed).repeat()
  return ShardOrder(parent, sizes, seed=seed, batch_size=batch_size, buffer=buffer)


SIZES = [(7, 1, 12, 30, 9), (64,), (1,), (5, 5, 5, 5), (100, 3, 80, 17)]


@pytest.mark.parametrize('sizes', SIZES)
@pytest.mark.parametrize(('batch_size', 'buffer'), [(8, 1), (8, 24), (5, 40), (12, 1000), (300, 9)])
def test_an_epoch_shows_every_example_once_and_each_has_its_order(sizes, batch_size, buffer):
  order, count = make_order(sizes, batch_size, buffer), sum(sizes)
  epochs = [[order[epoch * count + i] for i in range(count)] for epoch in range(3)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(count))
  other = make_order(sizes, batch_size, buffer, seed=1)
  if count > 20:
    assert len({*map(tuple, epochs), tuple(other[i] for i in range(count))}) == 4


def test_a_position_alone_gives_the_example():
  """From either side of an epoch's end, as a bad example's replacement asks."""
  straight = make_order((7, 20, 12), 8, 16)
  expected = [straight[i] for i in range(200)]
  jumping = make_order((7, 20, 12), 8, 16)
  for position in np.random.default_rng(0).permutation(200).tolist():
    assert jumping[position] == expected[position]


def test_the_buffer_mixes_what_is_near_and_spreads_what_is_far():
  """Within a window each example is as likely at each batch, and lanes are at other shards."""
  order = make_order([1000] * 40, 64, 1024)  # windows of 16 batches, lanes of 4 rows
  assert (order.lane_rows, order.stretch) == (4, 64)
  first = np.array([[order[64 * batch + row] for row in range(64)] for batch in range(16)])
  assert len(np.unique(first[0] // 1000)) == 16  # shards in one batch
  # Of examples that follow each other in a shard, one in 16 pairs or so is in the same batch.
  batch_of = {number: batch for batch, row in enumerate(first) for number in row.tolist()}
  pairs = [(n, n + 1) for n in batch_of if n + 1 in batch_of]
  together = np.mean([batch_of[a] == batch_of[b] for a, b in pairs])
  assert len(pairs) > 500 and 0.02 < together < 0.12
  # Row 0 is of the first lane, whose windows of one shard are 64 examples from its start.
  order = make_order([64 * 256], 64, 1024)
  lane = np.array([[order[64 * batch + row] for row in range(4)] for batch in range(256)])
  np.testing.assert_array_equal(np.sort(lane.reshape(16, 64)), np.arange(1024).reshape(16, 64))
  batch = np.repeat(np.arange(256), 4) % 16
  assert abs(np.corrcoef(lane.ravel() % 64, batch)[0, 1]) < 0.1


@pytest.mark.parametrize('rows', [[range(16)], [range(8), range(8, 16)]])
def test_requests_per_example_are_a_few_percent(bucket, rows):
  batches = [open_batches(open_source(bucket), rows=np.array(own)) for own in rows]
  Counted.sizes.clear()
  seen = [np.concatenate([take(own, 1)[0] for own in batches]) for _ in range(N // 16)]
  # The data are probed too, once per opening.
  assert len(np.unique(seen)) == N
  assert len(Counted.sizes) < 0.04 * N
  assert sum(Counted.sizes) < 1.6 * N * CAPTION_BYTES
  if len(rows) == 1:
    Counted.sizes.clear()
    take(open_batches(open_source(bucket), shuffle='global'), N // 16)
    assert len(Counted.sizes) >= N


def test_any_processes_give_the_same_batches_at_any_step(bucket):
  source = open_source(bucket)
  with_one = take(open_batches(source), 150)  # over two epochs, whose ends lie within batches
  halves = [
    take(open_batches(source, rows=np.arange(16)[part]), 150) for part in (slice(8), slice(8, 16))
  ]
  np.testing.assert_array_equal(np.concatenate(halves, axis=1), with_one)

  assert not np.array_equal(take(open_batches(source, seed=1), 2), with_one[:2])
  assert not np.array_equal(take(open_batches(source, shuffle_buffer=64), 2), with_one[:2])


class Sharded(list):
  """Examples in memory, in two shards."""

  cached = True

  def shard_sizes(self):
    return [len(self) // 3, len(self) - len(self) // 3]

  def reading_ahead(self, stretch, stretches):
    return self


@pytest.mark.slow
def test_workers_that_share_the_rows_of_a_batch_give_the_batches_of_none():
  """Images in shared memory, parts of unequal size, and bad examples included."""
  images = [example_of(color, damaged=color in (7, 99)) for color in range(400)]
  options = {'batch_size': 40, 'seed': 0, 'captions': {'caption': 1}, 'crop': (0.5, 1.0)}
  options |= {'image_size': 8, 'shuffle': 'shards'}
  straight, counts = data.training_batches(Sharded(images), lengths, **options)
  expected = [next(straight) for _ in range(13)]
  assert counts.skipped >= 2
  working, counted = data.training_batches(Sharded(images), lengths, workers=3, **options)
  with contextlib.closing(working):
    working.set_state({'batch': 3})
    for batch in expected[3:]:
      found = next(working)
      assert found.keys() == batch.keys()
      for name in batch:
        np.testing.assert_array_equal(found[name], batch[name])
  assert counted.seen == counts.seen - 3 * 40


def example_of(color, damaged):
  buffer = io.BytesIO()
  Image.new('RGB', (12, 12), (color % 256, 0, 0)).save(buffer, 'PNG')
  image = buffer.getvalue()[: 30 if damaged else None]
  return {'id': color, 'image': image, 'caption': 'x' * (1 + color % 9)}


def test_rounds_of_a_share_are_within_the_order(bucket):
  batches = open_batches(open_source(bucket), subset=0.25)
  ids = np.concatenate(take(batches, 2 * N // 64))
  assert len(np.unique(ids[: N // 4])) == N // 4
  assert len(np.unique(ids)) > N // 4


def test_a_selection_keeps_to_its_files(bucket):
  source = data.open_source('emoji', 'train[vendor=noto]+train')
  assert sum(source.shard_sizes()) == len(source)
  part = data.open_source(bucket, 'train[100:300]+train[280:290]')
  assert part.shard_sizes() == [30, 130, 40, 10]
  twice = data.Source(part._records, '', '')
  assert twice.shard_sizes() == [30, 130, 40, 10] * 2


def test_a_mixture_is_refused(bucket):
  mixed = data.open_source(f'{bucket}*1+{bucket}*2', 'train')
  with pytest.raises(
    ValueError, match=r"config\.data\.shuffle = 'shards' .* mixture; use 'global'"
  ):
    open_batches(mixed)
  with pytest.raises(ValueError, match=r"config\.data\.shuffle = 'shard'; use 'global'"):
    open_batches(mixed, shuffle='shard')


def test_blocks_give_the_bytes_of_the_file_with_one_request_for_all_threads(tmp_path, monkeypatch):
  content = np.random.default_rng(0).bytes(300_000)
  path = str(tmp_path / 'file')
  (tmp_path / 'file').write_bytes(content)
  read, asked = files.read, collections.Counter()
  monkeypatch.setattr(files, 'read', lambda *key: asked.update([key]) or read(*key))
  reader = ReadAhead(2**16, 2)
  for offset, size in [(0, 10), (65_530, 20), (0, 300_000), (299_990, 50), (70_000, 0)]:
    assert reader.read(path, offset, size) == content[offset : offset + size]
  asked.clear()
  fresh = ReadAhead(2**16, 2)
  threads = [threading.Thread(target=fresh.read, args=(path, 5 * i, 5)) for i in range(20)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert [*asked.values()] == [1]
  with pytest.raises(FileNotFoundError):
    fresh.read(str(tmp_path / 'other'), 0, 5)
  (tmp_path / 'other').write_bytes(b'there now')
  assert fresh.read(str(tmp_path / 'other'), 0, 5) == b'there'


def test_memory_holds_as_many_blocks_as_the_stretches_need(tmp_path):
  (tmp_path / 'file').write_bytes(bytes(40 * 2**16))
  reader = ReadAhead(2**16, 2)
  for block in range(40):
    reader.read(str(tmp_path / 'file'), block * 2**16, 1)
  assert len(reader._blocks) == 6
