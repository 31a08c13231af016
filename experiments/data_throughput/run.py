"""Throughput from disk to batch, compared to raw decoding and to webdataset with torch.

  python -m experiments.data_throughput.run --data=FOLDER --peer_python=PEER/bin/python
  python -m experiments.data_throughput.run --data=FOLDER --only=convert    of data.convert alone

FOLDER stores the images once in every format. PEER is a virtual environment with
requirements.txt of this folder. Writes results.json and convert.json, and prints their tables.
"""

import contextlib
import itertools
import json
import multiprocessing
import pathlib
import subprocess
import tempfile
import time

import fsspec
import numpy as np
from absl import app, flags
from fsspec.implementations.local import LocalFileSystem

from contrastive_jax import data
from contrastive_jax.data import convert, images
from experiments import records
from experiments.data_throughput import pictures, report

DATA = flags.DEFINE_string('data', None, 'Takes the pictures.', required=True)
PEER_PYTHON = flags.DEFINE_string('peer_python', None, 'Interpreter that has open_clip.')
ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each.', lower_bound=1)
SECONDS = flags.DEFINE_float('seconds', 10.0, 'Seconds a turn.')
ONLY = flags.DEFINE_enum('only', None, ['rates', 'convert'], 'Measures this alone.')
EXAMPLES = flags.DEFINE_integer('examples', pictures.MOST, 'Pictures.', lower_bound=1)

SIZE, CROP, BATCH = 224, (0.9, 1.0), 64
WARM = 8  # batches per worker before timing starts
WAIT = 0.03  # seconds per request, the latency of a bucket in the same region
SHARD = 1_000  # examples, of a conversion
COPIES = 8  # of the shards, for a conversion that outlasts the start of its workers
BUFFER = 4_096  # examples, of the shuffle of shards
CAPTIONS = {'caption': 1.0}


def rate_of(batches, seconds: float, workers: int) -> float:
  """Returns examples per second, after a warm-up of each worker."""
  for _ in range(WARM * workers):
    next(batches)
  start, count = time.perf_counter(), 0
  while time.perf_counter() < start + seconds:
    count += len(next(batches)['id'])
  return count / (time.perf_counter() - start)


class Away(LocalFileSystem):
  """The disk with a delay per request, like a bucket; workers import it with this module."""

  protocol = 'away'

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.removeprefix('away://'))

  def unstrip_protocol(self, name):
    """Returns a path with its protocol."""
    return f'away://{self._strip_protocol(name)}'

  def cat_file(self, path, start=None, end=None, **options):
    """Reads a range, after a wait."""
    time.sleep(WAIT)
    return super().cat_file(path, start=start, end=end, **options)


fsspec.register_implementation('away', Away, clobber=True)


def ours(name: str, workers: int, shuffle: str = 'global') -> float:
  """Returns examples per second of our pipeline."""
  source = data.open_source(name, 'train')
  source.cached = False  # No caching, as for data larger than memory.
  batches, _ = data.training_batches(
    source,
    data.ClipTokenizer(),
    batch_size=BATCH,
    image_size=SIZE,
    captions=CAPTIONS,
    crop=CROP,
    seed=0,
    shuffle=shuffle,
    shuffle_buffer=BUFFER,
    workers=workers,
  )
  with contextlib.closing(batches):
    return rate_of(batches, SECONDS.value, workers)


def decode_alone(name, seconds, begin, answers):
  """Decodes and crops images from memory."""
  source = data.open_source(name, 'train')
  rng, count = np.random.default_rng(0), 0
  encoded = [source[number]['image'] for number in rng.permutation(len(source)).tolist()]

  def show():
    picture = images.decode(encoded[count % len(encoded)])
    images.random_resized_crop(picture, SIZE, rng, area=CROP)

  for _ in range(WARM * BATCH):
    show()
  begin.wait()
  start = time.perf_counter()
  while time.perf_counter() < start + seconds:
    show()
    count += 1
  answers.put(count / (time.perf_counter() - start))


def raw(name: str, workers: int) -> float:
  """Returns images per second of `workers` processes that only decode and crop."""
  context = multiprocessing.get_context('spawn')
  answers = context.Queue()
  arguments = (name, SECONDS.value, context.Barrier(workers), answers)
  processes = [context.Process(target=decode_alone, args=arguments) for _ in range(workers)]
  for process in processes:
    process.start()
  rates = [answers.get() for _ in processes]
  for process in processes:
    process.join()
  return sum(rates)


def start_peer(pattern: str):
  """Starts webdataset with torch; returns a function of the number of workers."""
  process = subprocess.Popen(
    [PEER_PYTHON.value, str(pathlib.Path(__file__).with_name('peer.py'))],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )

  def theirs(workers):
    turn = {'pattern': pattern, 'workers': workers, 'batch_size': BATCH}
    turn |= {'seconds': SECONDS.value, 'warm': WARM}
    print(json.dumps(turn), file=process.stdin, flush=True)
    return json.loads(process.stdout.readline())['rate']

  return theirs


def converted(name: str, folder: pathlib.Path, workers: int) -> float:
  """Returns examples per second of a conversion to ArrayRecord."""
  with tempfile.TemporaryDirectory(dir=folder) as target:
    start = time.perf_counter()
    found = convert.convert(name, target, shard_size=SHARD, workers=workers)
    return found['written'] / (time.perf_counter() - start)


def copied(folder: pathlib.Path, copies: int) -> str:
  """Links the shards of the WebDataset several times; returns the name of them all."""
  links = folder / f'webdataset_{copies}'
  links.mkdir(exist_ok=True)
  for copy, shard in itertools.product(range(copies), (folder / 'webdataset').glob('train-*.tar')):
    link = links / f'{copy}-{shard.name}'
    if not link.exists():
      link.symlink_to(shard.absolute())
  return f'webdataset:{links}/*.tar'


def best_of(systems):
  """Alternates turns with 1 and 2 workers, and returns the best of each by system."""
  results = {name: {} for name in systems}
  for _ in range(ROUNDS.value):
    for workers in (1, 2):
      for name, measure in systems.items():
        best = results[name].get(str(workers), 0.0)
        results[name][str(workers)] = max(best, measure(workers))
  return results


def rates(folder: pathlib.Path, names: dict[str, str]):
  """Returns examples per second of the pipeline, and of what it is compared to."""
  systems = {'raw decoding': lambda workers: raw(names['arrayrecord'], workers)}
  systems |= {name: lambda workers, name=name: ours(names[name], workers) for name in names}
  systems['parquet, by shards'] = lambda workers: ours(names['parquet'], workers, 'shards')
  away = names['webdataset'].replace('webdataset:', 'webdataset:away://')
  systems['webdataset, 30 ms away'] = lambda workers: ours(away, workers)
  systems['webdataset, 30 ms away, by shards'] = lambda workers: ours(away, workers, 'shards')
  if PEER_PYTHON.value:
    shards = sorted(map(str, (folder / 'webdataset').glob('train-*.tar')))
    systems['webdataset with torch'] = start_peer(shards)
  else:
    print('No --peer_python: webdataset with torch is left out.')
  return best_of(systems)


def main(_):
  """Writes and prints the tables."""
  folder = pathlib.Path(DATA.value)
  names = pictures.prepare(folder, EXAMPLES.value)
  if ONLY.value != 'convert':
    records.write(report.RESULTS, rates(folder, names))
    print(report.rates(report.RESULTS))
  if ONLY.value != 'rates':
    names = {1: names['webdataset'], COPIES: copied(folder, COPIES)}
    systems = {
      f'webdataset, {copies * EXAMPLES.value:,} images': (
        lambda workers, name=name: converted(name, folder, workers)
      )
      for copies, name in names.items()
    }
    records.write(report.CONVERSIONS, best_of(systems))
    print(report.conversions(report.CONVERSIONS))


if __name__ == '__main__':
  app.run(main)
