"""The memory of the pipeline over ten epochs, and of the shuffle of a billion examples.

  python -m experiments.data_throughput.memory --data=FOLDER

FOLDER is that of run.py. Prints the README's numbers and writes memory.json.
"""

import contextlib
import multiprocessing
import pathlib
import resource
import time

from absl import app, flags

from contrastive_jax import data
from experiments import records
from experiments.data_throughput import pictures, report, run

EPOCHS = flags.DEFINE_integer('epochs', 10, 'Passes over the pictures.')


class Numbered:
  """A source of a billion examples."""

  cached = False

  def __init__(self, example):
    self._example = example

  def __len__(self):
    return 10**9

  def __getitem__(self, number):
    return self._example | {'id': number}


def resident() -> float:
  """Returns the memory of this process and its workers, in MB."""
  processes = ['self', *(child.pid for child in multiprocessing.active_children())]
  pages = sum(
    int(pathlib.Path(f'/proc/{process}/statm').read_text().split()[1]) for process in processes
  )
  return pages * resource.getpagesize() / 1e6


def open_batches(source, workers: int):
  """Opens the batches of run.py."""
  return data.training_batches(
    source,
    data.ClipTokenizer(),
    batch_size=run.BATCH,
    image_size=run.SIZE,
    captions=run.CAPTIONS,
    crop=run.CROP,
    seed=0,
    workers=workers,
  )[0]


def epochs(source, workers: int) -> list[float]:
  """Returns the maximum MB of each epoch; the number of waiting batches fluctuates."""
  with contextlib.closing(open_batches(source, workers)) as batches:
    sizes = []
    for _ in range(EPOCHS.value):
      most = 0.0
      for _ in range(len(source) // run.BATCH):
        next(batches)
        most = max(most, resident())
      sizes.append(most)
  return sizes


def billion(example) -> dict[str, float]:
  """Measures seconds and MB to open a shuffle and to draw its first batch."""
  before, start = resident(), time.perf_counter()
  batches = open_batches(Numbered(example), workers=0)
  opened = time.perf_counter() - start
  ids = next(batches)['id']
  assert ids.max() > 5e8 > ids.min()
  return {
    'seconds_to_open': opened,
    'seconds_to_first_batch': time.perf_counter() - start,
    'megabytes': resident() - before,
  }


def main(_):
  """Measures the ten epochs of each source, then the billion."""
  results = {}
  for name, place in pictures.prepare(pathlib.Path(run.DATA.value), run.EXAMPLES.value).items():
    source = data.open_source(place, 'train')
    source.cached = False
    for workers in (0, 2):
      sizes = results[f'{name}, {workers} workers'] = epochs(source, workers)
      print(
        f'{name}, {workers} workers: {sizes[0]:.0f} MB in the first epoch, then up to '
        f'{max(sizes) / sizes[0] - 1:+.1%}',
        flush=True,
      )
  results['billion'] = billion(source[0])
  print(results['billion'])
  records.write(report.RESULTS.with_name('memory.json'), results)


if __name__ == '__main__':
  app.run(main)
