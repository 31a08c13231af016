"""Train-step throughput compared to open_clip, with equal sizes, loss and optimizer.

  python -m experiments.throughput.run --peer_python=PEER/bin/python

PEER is a virtual environment with requirements.txt of this folder. Writes results.json and prints
its table.
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

SHARED = {'patch': 8, 'heads': 4, 'length': 16, 'vocabulary': 4096}
MODELS = {
  'small': {'size': 32, 'width': 128, 'image_layers': 4, 'text_layers': 2, 'batch': 256},
  'larger': {'size': 64, 'width': 256, 'image_layers': 6, 'text_layers': 4, 'batch': 128},
}
DTYPES = ('float32', 'bfloat16')


@functools.cache
def build_step(
  dtype, size, patch, width, image_layers, text_layers, heads, length, vocabulary, batch
):
  """Builds the step of the emoji config with a patch stem, its state and a batch."""
  config = clip.get_config()
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
  random = np.random.default_rng(0)
  arrays = {
    'image': random.integers(0, 256, (batch, size, size, 3), np.uint8),
    'tokens': random.integers(1, vocabulary, (batch, length), np.int32),
  }
  # A list holds the state, as each step donates its buffers.
  return run.train_step, [run.create_state(0)], jax.device_put(arrays)


def ours(seconds, **sizes):
  """Runs one turn; returns the number of parameters and the seconds of each step."""
  step, states, batch = build_step(**sizes)
  steps = []
  states[0], _ = jax.block_until_ready(step(states[0], batch))
  while len(steps) < 2 or sum(steps) < seconds:
    start = time.perf_counter()
    states[0], _ = jax.block_until_ready(step(states[0], batch))
    steps.append(time.perf_counter() - start)
  parameters = sum(array.size for array in jax.tree.leaves(states[0].parameters))
  return {'parameters': parameters, 'steps': steps}


def start_peer(python):
  """Starts open_clip; returns a function like `ours`."""
  process = subprocess.Popen(
    [python, str(pathlib.Path(__file__).with_name('peer.py'))],
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
      for dtype in DTYPES:
        for system, turn in systems.items():
          answer = turn(dtype=dtype, seconds=SECONDS.value, **sizes, **SHARED)
          row = results.setdefault(model, {}).setdefault(system, {})
          row['parameters'] = answer['parameters']
          rate = sizes['batch'] / min(answer['steps'])
          row[dtype] = max(row.get(dtype, 0.0), rate)
  records.write(report.RESULTS, results)
  print(report.rates(report.RESULTS))


if __name__ == '__main__':
  app.run(main)
