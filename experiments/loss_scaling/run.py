"""Memory and time of InfoNCE: dense, all-gather with local rows, and ours.

  python -m experiments.loss_scaling.run
  python -m experiments.loss_scaling.run --only=time    # on a quiet machine

Adds each measurement to results.json, and skips measurements that it holds. Prints its tables and
draws its plots. Each number of simulated devices runs in its own process.
"""

import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
from absl import app, flags

from contrastive_jax.sharding.mesh import batch_sharding, make_mesh
from experiments import records
from experiments.loss_scaling import methods, report

ONLY = flags.DEFINE_enum(
  'only', None, ['memory', 'time', 'report'], 'Measure memory, time or nothing. Default: both.'
)
DEVICES = flags.DEFINE_integer(
  'devices', None, 'Measure on this many, in this process. Default: all.', lower_bound=1
)
LARGEST = flags.DEFINE_integer('largest', 2**20, 'The largest batch.', lower_bound=1024)
OUTPUT = flags.DEFINE_string(
  'output', str(report.RESULTS.parent), 'Where results.json and the plots are.'
)

DEVICE_COUNTS = {'memory': (1, 8, 64, 256), 'time': (1, 8)}
# Limits of a timed measurement: temporaries of all devices together, and seconds per call.
MOST_BYTES, MOST_SECONDS = 6e9, 60.0
# Turns per method and batch: at least the first number, and until the second of seconds passed.
TURNS, SECONDS = 8, 10.0
SCALE = 1 / 0.07
MATMULS = {
  report.LIMIT: methods.compile_four_matmuls,
  report.DENSE_LIMIT: methods.compile_three_matmuls,
}


def measure_memory(devices, batches, results):
  """Returns compiled temporaries per device, without execution."""
  mesh = make_mesh(devices=jax.devices()[:devices])
  done = {(row['batch'], row['method']) for row in report.read(results, 'memory', devices)}
  for batch in batches:
    for name, method in methods.METHODS.items():
      if (batch, name) in done:
        continue
      row = {'measured': 'memory', 'devices': devices, 'batch': batch, 'method': name}
      try:
        program = methods.compile_gradients(method, batch, mesh)
        row['bytes'] = program.memory_analysis().temp_size_in_bytes
      except (ValueError, jax.errors.JaxRuntimeError) as error:
        row['failure'] = str(error).partition('\n')[0]
      write(results, row)


def measure_time(devices, batches, results):
  """Returns seconds for value and gradients, the best of several alternating turns."""
  mesh = make_mesh(devices=jax.devices()[:devices])
  if not report.read(results, 'rate', devices):
    write(results, {'measured': 'rate', 'devices': devices, 'flops': matmul_rate()})
  for batch in batches:
    rows = report.read(results, 'time', devices)
    if any(row['batch'] == batch for row in rows):
      continue
    before = {row['method']: row for row in rows if row['batch'] == batch // 2}
    calls, new = {}, {}
    for name in (*methods.METHODS, *MATMULS):
      new[name] = {'measured': 'time', 'devices': devices, 'batch': batch, 'method': name}
      reason, calls[name] = prepare(name, batch, mesh, before.get(name, {}))
      if reason:
        new[name]['left_out'] = reason
    for name, seconds in take_turns({name: call for name, call in calls.items() if call}).items():
      new[name]['seconds'] = seconds
    # All methods of a batch are measured together, also after an interruption.
    write(results, *new.values())


def prepare(name, batch, mesh, before):
  """Returns the reason to skip a method at this batch, or None; and the function, or None."""
  if 'left_out' in before:
    return before['left_out'], None
  if 4 * before.get('seconds', 0.0) > MOST_SECONDS:
    return f'over {MOST_SECONDS:.0f} s', None
  if name in MATMULS:
    program = MATMULS[name](batch, mesh)
  else:
    program = methods.compile_gradients(methods.METHODS[name], batch, mesh)
    if mesh.size * program.memory_analysis().temp_size_in_bytes > MOST_BYTES:
      return f'over {MOST_BYTES / 1e9:.0f} GB', None
  random = np.random.default_rng(0)
  vectors = random.normal(size=(2, batch, methods.EMBEDDING)).astype(np.float32)
  vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
  arguments = jax.device_put(tuple(vectors), batch_sharding(mesh))
  if name not in MATMULS:
    whole = jax.NamedSharding(mesh, jax.P())
    arguments += (jax.device_put(np.float32(SCALE), whole),)
  return None, lambda: program(*arguments)


def take_turns(calls):
  """Returns the seconds of the fastest call of each."""
  best = dict.fromkeys(calls, np.inf)
  start, turns = time.perf_counter(), 0
  while calls and (turns < TURNS or time.perf_counter() - start < SECONDS):
    for name, call in calls.items():
      # Twice: the first call may pay for pages that the method before it has returned.
      best[name] = min(best[name], seconds_of(call), seconds_of(call))
    turns += 1
  return best


def seconds_of(call):
  """Returns the seconds of a call."""
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


def matmul_rate(size=2048):
  """Returns FLOP/s of a large square matmul in float32."""
  matrix = jax.random.normal(jax.random.key(0), (size, size))
  multiply = jax.jit(lambda a: jax.numpy.matmul(a, a, precision='highest')).lower(matrix).compile()
  return 2 * size**3 / take_turns({'matmul': lambda: multiply(matrix)})['matmul']


def write(results, *rows):
  """Adds rows to the results, and prints them."""
  earlier = records.read(results)['results'] if results.exists() else []
  records.write(results, [*earlier, *rows], resumed=True)
  for row in rows:
    print(row, flush=True)


def main(_):
  """Measures each number of devices in its own process; prints tables and draws plots."""
  output = pathlib.Path(OUTPUT.value).absolute()
  output.mkdir(parents=True, exist_ok=True)
  results = output / 'results.json'
  kinds = [ONLY.value] if ONLY.value else ['memory', 'time']
  if DEVICES.value and ONLY.value != 'report':
    # The number of devices is set before any computation starts the backend.
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', DEVICES.value)
    batches = [2**power for power in range(10, LARGEST.value.bit_length())]
    measure = {'memory': measure_memory, 'time': measure_time}
    for kind in kinds:
      measure[kind](DEVICES.value, batches, results)
    return
  for kind in kinds:
    for devices in DEVICE_COUNTS.get(kind, ()):
      flags_of_child = f'--only={kind}', f'--devices={devices}', f'--largest={LARGEST.value}'
      command = [sys.executable, '-m', 'experiments.loss_scaling.run', *flags_of_child]
      subprocess.run([*command, f'--output={output}'], cwd=records.ROOT, check=True)
  for table in report.TABLES.values():
    print(f'\n{table.func(results)}')
  report.draw(results, output)


if __name__ == '__main__':
  app.run(main)
