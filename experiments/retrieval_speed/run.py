"""Time and memory of recall and neighbors for N images and N texts, compared to faiss's flat index.

  pip install -r experiments/retrieval_speed/requirements.txt
  python -m experiments.retrieval_speed.run --size=100000

Each measurement has its own process; the methods alternate. The same command resumes. Writes
results.json and prints its table.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

from experiments import records
from experiments.retrieval_speed import methods, report

SIZE = flags.DEFINE_integer('size', 10_000, 'N, images and as many texts.', lower_bound=1)
WIDTH = flags.DEFINE_integer('width', 512, 'D of the embeddings.', lower_bound=1)
REPEATS = flags.DEFINE_integer('repeats', 3, 'Measurements of each.', lower_bound=1)
MEASURE = flags.DEFINE_enum('measure', None, list(methods.METHODS), 'Of a child: what it measures.')
OUTPUT = flags.DEFINE_string('output', str(report.RESULTS), 'Output file.')


def draw() -> tuple[np.ndarray, np.ndarray]:
  """Draws unit vectors [N, D] of images and, near them, of texts."""
  random = np.random.default_rng(0)
  image = random.standard_normal((SIZE.value, WIDTH.value), np.float32)
  text = random.standard_normal((SIZE.value, WIDTH.value), np.float32)
  text *= 5
  text += image
  for vectors in (image, text):
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  return image, text


def measure() -> dict:
  """Measures seconds, peak memory beyond the embeddings, and what one method found."""
  function = methods.METHODS[MEASURE.value]
  image, text = draw()
  # Memory of libraries and compilation does not count.
  function(image[:64], text[:64])
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  start, busy = time.perf_counter(), time.process_time()
  found = function(image, text)
  seconds, busy = time.perf_counter() - start, time.process_time() - busy
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {
    'seconds': seconds,
    'processor_seconds': busy,
    'gigabytes': (after - before) * 1024 / 1e9,
    'found': found,
  }


def main(_):
  """Makes the missing measurements in turn, and prints all."""
  if MEASURE.value:
    print(json.dumps(measure()))
    return
  # Cores are compared, and the children inherit the variable.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  output = pathlib.Path(OUTPUT.value)
  output.parent.mkdir(parents=True, exist_ok=True)
  results = records.read(output)['results'] if output.exists() else []
  for repeat in range(REPEATS.value):
    for name in methods.METHODS:
      task, method = name.split('/')
      key = {'task': task, 'method': method, 'size': SIZE.value, 'width': WIDTH.value}
      key['repeat'] = repeat
      if any(key.items() <= row.items() for row in results):
        continue
      command = [sys.executable, '-m', 'experiments.retrieval_speed.run', f'--measure={name}']
      command += [f'--size={SIZE.value}', f'--width={WIDTH.value}']
      child = subprocess.run(
        command, cwd=records.ROOT, check=True, stdout=subprocess.PIPE, text=True
      )
      results.append(key | json.loads(child.stdout.splitlines()[-1]))
      records.write(output, results, resumed=True)
  print(report.speed(output))


if __name__ == '__main__':
  app.run(main)
