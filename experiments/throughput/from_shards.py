"""Throughput of training from JPEG shards, compared to open_clip.

  python -m experiments.throughput.from_shards --data=FOLDER --peer_python=PEER/bin/python

FOLDER stores the images once, as in experiments/data_throughput. PEER is the environment of run.py.
Writes from_shards.json and prints its table.
"""

import contextlib
import itertools
import pathlib
import time

import jax
from absl import app, flags

from contrastive_jax import data
from contrastive_jax.runtime import cpu
from contrastive_jax.sharding.mesh import place_rows
from experiments import records
from experiments.data_throughput import pictures
from experiments.throughput import report, run

DATA = flags.DEFINE_string('data', None, 'Folder of the images.', required=True)

WORKERS = 0, 1, 2
WARM = 8  # steps before timing starts
SHARED = run.SHARED | {'vocabulary': 49_408}  # CLIP's tokenizer


def open_batches(name: str, workers: int, sizes: dict):
  """Opens the batches of `training.loop`, with open_clip's crops."""
  source = data.open_source(name, 'train')
  source.cached = False  # No caching, as for data larger than memory.
  batches, _ = data.training_batches(
    source,
    data.ClipTokenizer(sizes['length']),
    batch_size=sizes['batch'],
    image_size=sizes['size'],
    captions={'caption': 1.0},
    crop=(0.9, 1.0),
    seed=0,
    workers=workers,
  )
  return contextlib.closing(batches)


def ours(name: str, workers: int, seconds: float, **sizes) -> dict:
  """Runs one turn of the loop; returns the number of parameters and the seconds of each step."""
  built, states = run.build_run(**sizes)
  steps, metrics = [], None
  with open_batches(name, workers, sizes) as batches:
    start = time.perf_counter()
    while len(steps) < WARM + 2 or sum(steps[WARM:]) < seconds:
      # The devices still compute the previous step while this batch is loaded and transferred.
      batch = place_rows(next(batches), built.mesh, sizes['batch'])
      previous = metrics
      states[0], metrics = built.train_step(states[0], batch)
      jax.block_until_ready(previous)
      now = time.perf_counter()
      steps.append(now - start)
      start = now
    jax.block_until_ready(states[0])
  return {'parameters': run.count_parameters(states[0]), 'steps': steps[WARM:]}


def main(_):
  """Alternates turns, and keeps the best turn of each."""
  # The settings of launch.py.
  cpu.split_cores()
  cpu.keep_memory()
  folder = pathlib.Path(DATA.value)
  name = pictures.prepare(folder)['webdataset']
  theirs = run.start_peer(run.PEER_PYTHON.value)
  pattern = sorted(map(str, (folder / 'webdataset').glob('train-*.tar')))
  systems = {
    'ours': lambda **turn: ours(name, **turn),
    'open_clip': lambda **turn: theirs(pattern=pattern, warm=WARM, **turn),
  }
  results = {model: {system: {} for system in systems} for model in run.MODELS}
  kinds = itertools.product(run.MODELS, run.DTYPES.value, WORKERS, systems)
  for _, (model, dtype, workers, system) in itertools.product(range(run.ROUNDS.value), [*kinds]):
    sizes = run.MODELS[model] | SHARED
    turn = {'workers': workers, 'seconds': run.SECONDS.value, 'dtype': dtype}
    answer = systems[system](**turn, **sizes)
    row = results[model][system]
    row['parameters'] = answer['parameters']
    rates = row.setdefault(dtype, {})
    # A mean, since batches arrive unevenly.
    rate = sizes['batch'] * len(answer['steps']) / sum(answer['steps'])
    rates[str(workers)] = max(rates.get(str(workers), 0.0), rate)
    print(f'{model}, {dtype}, {workers} workers, {system}: {rate:,.0f} images/s', flush=True)
  records.write(report.FROM_SHARDS, results)
  print(report.from_shards(report.FROM_SHARDS))


if __name__ == '__main__':
  app.run(main)
