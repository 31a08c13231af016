"""Train-step throughput compared to open_clip, with equal sizes, loss and optimizer.

  python -m experiments.throughput.run --peer_python=PEER/bin/python

PEER is a virtual environment with requirements.txt of this folder. Writes the output file and
prints its table.
"""

import functools
import json
import pathlib
import subprocess
import time

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from configs import clip
from contrastive_jax.runtime import cpu
from contrastive_jax.training import build
from experiments import records
from experiments.throughput import report

PEER_PYTHON = flags.DEFINE_string('peer_python', None, 'Interpreter that has open_clip.')
ROUNDS = flags.DEFINE_integer('rounds', 6, 'Turns of each.', lower_bound=1)
SECONDS = flags.DEFINE_float('seconds', 3.0, 'Seconds a turn, two steps at least.')
OUTPUT = flags.DEFINE_string('output', str(report.RESULTS), 'Output file.')
DTYPES = flags.DEFINE_list('dtypes', list(report.DTYPES), 'Of both sides.')

SHARED = {'patch': 8, 'heads': 4, 'length': 16, 'vocabulary': 4096}
MODELS = {
  'small': {'size': 32, 'width': 128, 'image_layers': 4, 'text_layers': 2, 'batch': 256},
  'larger': {'size': 64, 'width': 256, 'image_layers': 6, 'text_layers': 4, 'batch': 128},
}


@functools.cache
def build_run(
  dtype, size, patch, width, image_layers, text_layers, heads, length, vocabulary, batch
):
  """Builds the run of the emoji config with a patch stem, and a list that holds its state."""
  config = clip.recipe()
  config.batch_size = batch
  config.optimizer.clip_norm = None
  config.augmentation = ConfigDict()
  config.data.size = size
  config.model.update({'embed': width, 'dtype': dtype})
  shared = {'width': width, 'heads': heads}
  image = {'size': size, 'patch': patch, 'stem': 'patch', 'stem_blocks': None}
  image |= {'pooling': 'class', 'pre_norm': True}
  config.model.image.update(image | shared | {'layers': image_layers})
  config.model.text.update(
    {'length': length, 'vocabulary': vocabulary, 'layers': text_layers} | shared
  )
  run = build.build(config)
  # Each step donates the buffers of the state.
  return run, [run.create_state(0)]


def count_parameters(state):
  """Returns the number of parameters."""
  return sum(array.size for array in jax.tree.leaves(state.parameters))


def ours(seconds, **sizes):
  """Runs one turn; returns the number of parameters and the seconds of each step."""
  run, states = build_run(**sizes)
  batch, size = sizes['batch'], sizes['size']
  random = np.random.default_rng(0)
  arrays = {
    'image': random.integers(0, 256, (batch, size, size, 3), np.uint8),
    'tokens': random.integers(1, sizes['vocabulary'], (batch, sizes['length']), np.int32),
  }
  arrays = jax.device_put(arrays)
  steps = []
  states[0], _ = jax.block_until_ready(run.train_step(states[0], arrays))
  while len(steps) < 2 or sum(steps) < seconds:
    start = time.perf_counter()
    states[0], _ = jax.block_until_ready(run.train_step(states[0], arrays))
    steps.append(time.perf_counter() - start)
  return {'parameters': count_parameters(states[0]), 'steps': steps}


def start_peer(python):
  """Starts open_clip; returns a function like `ours`."""
  process = subprocess.Popen(
    [python, '-m', 'experiments.throughput.peer'],
    cwd=records.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )

  def theirs(**turn):
    print(json.dumps(turn), file=process.stdin, flush=True)
    return json.loads(process.stdout.readline())

  return theirs


def main(_):
  """Alternates turns, and keeps the best step of each."""
  # The settings of launch.py.
  cpu.split_cores()
  cpu.keep_memory()
  systems = {'ours': ours}
  if PEER_PYTHON.value:
    systems['open_clip'] = start_peer(PEER_PYTHON.value)
  else:
    print('No --peer_python: open_clip is left out.')
  results = {}
  for _ in range(ROUNDS.value):
    for model, sizes in MODELS.items():
      for dtype in DTYPES.value:
        for system, turn in systems.items():
          answer = turn(dtype=dtype, seconds=SECONDS.value, **sizes, **SHARED)
          row = results.setdefault(model, {}).setdefault(system, {})
          row['parameters'] = answer['parameters']
          rate = sizes['batch'] / min(answer['steps'])
          row[dtype] = max(row.get(dtype, 0.0), rate)
  output = pathlib.Path(OUTPUT.value)
  records.write(output, results)
  print(report.rates(output))


if __name__ == '__main__':
  app.run(main)
