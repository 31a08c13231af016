"""Kills a run at random times, and compares its final state to that of an undisturbed run.

  python -m experiments.faults.run

Writes results.json and prints its tables. Skips what is finished in --folder.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from absl import app, flags

from contrastive_jax.training import build, workdir
from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.logger import read_metrics
from experiments import records
from experiments.faults import report

RUNS = flags.DEFINE_string('folder', 'runs/faults', 'Where the runs live.')
FAULTS = flags.DEFINE_integer('faults', 20, 'Faults a run.', lower_bound=1)
SEED = flags.DEFINE_integer('seed', 0, 'Of the moments and kinds.')

STEPS = 400
DEVICES = 4
CONFIG = (
  f'--config={records.ROOT}/configs/clip.py:smoke',
  f'--config.total_steps={STEPS}',
  '--config.checkpoint_every=7',
  '--config.average_decay=0.9',
  '--config.augmentation.erase=0.5',
  "--config.evaluation.splits=('heldout_composition',)",
)
SAME_DEVICES = ('SIGKILL', 'SIGTERM', 'SIGKILL, newest checkpoint damaged')
OTHER_DEVICES = (*SAME_DEVICES, 'SIGKILL, other number of devices')


def start(folder: pathlib.Path, devices: int) -> subprocess.Popen:
  """Starts or resumes the run."""
  folder.mkdir(parents=True, exist_ok=True)
  return subprocess.Popen(
    [sys.executable, records.ROOT / 'launch.py', *CONFIG, f'--workdir={folder}'],
    env=os.environ | {'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}'},
    stdout=(folder / 'printed.txt').open('a'),
    stderr=subprocess.STDOUT,
  )


def last_step(folder: pathlib.Path) -> int:
  """Returns the step of the last line of metrics."""
  rows = read_metrics(folder)
  return rows[-1]['step'] if rows else 0


def wait(process: subprocess.Popen, folder: pathlib.Path, moments: random.Random) -> None:
  """Waits for a random time: some fall into the start of the run, most into its steps."""
  before = last_step(folder)
  if moments.random() < 0.15:
    return time.sleep(moments.uniform(0, 10))
  until = before + moments.randint(1, 30)
  while process.poll() is None and not before < until <= last_step(folder):
    time.sleep(0.01)
  return time.sleep(moments.uniform(0, 0.2))


def damage(folder: pathlib.Path, moments: random.Random) -> str:
  """Damages the newest checkpoint: truncates or removes a file, or flips a bit."""
  steps = [path for path in (folder / 'checkpoints').iterdir() if path.name.isdigit()]
  if len(steps) < 2:
    return 'none yet'
  newest = max(steps, key=lambda path: int(path.name))
  files = [path for path in newest.rglob('*') if path.is_file() and path.stat().st_size]
  path = moments.choices(files, [file.stat().st_size ** 0.5 for file in files])[0]
  how = moments.choice(['truncated', 'a bit flipped', 'removed'])
  content = bytearray(path.read_bytes())
  if how == 'removed':
    path.unlink()
  elif how == 'truncated':
    path.write_bytes(content[: len(content) // 2])
  else:
    content[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
    path.write_bytes(content)
  return f'step {newest.name}, {path.relative_to(newest)} {how}'


def suffer(folder: pathlib.Path, kinds: tuple[str, ...]) -> list[dict]:
  """Runs to the end, through all faults; returns their list."""
  journal = folder / 'faults.json'
  if journal.exists():
    return json.loads(journal.read_text())
  shutil.rmtree(folder, ignore_errors=True)
  moments, devices, faults = random.Random(SEED.value), DEVICES, []
  for number in range(FAULTS.value):
    kind = kinds[number % len(kinds)]
    process = start(folder, devices)
    wait(process, folder, moments)
    process.send_signal(signal.SIGTERM if kind == 'SIGTERM' else signal.SIGKILL)
    status = process.wait()
    fault = {'fault': kind, 'step': last_step(folder), 'status': status, 'devices': devices}
    if 'damaged' in kind:
      fault['damage'] = damage(folder, moments)
    if 'devices' in kind:
      devices = moments.choice([n for n in (1, 2, 4, 8) if n != devices])
    faults.append(fault)
    print(fault, flush=True)
  if start(folder, devices).wait():
    raise RuntimeError(f'the run did not end well, see {folder}/printed.txt')
  journal.write_text(json.dumps(faults, indent=2) + '\n')
  return faults


def compare(folder: pathlib.Path, clean: pathlib.Path) -> dict[str, float]:
  """Compares two finished runs."""
  run = build.build(workdir.read_config(clean))
  checkpoints = [Checkpoints(path / 'checkpoints') for path in (folder, clean)]
  states = [jax.device_get(each.restore(run.abstract_state)[0]) for each in checkpoints]
  pairs = list(zip(*map(jax.tree.leaves, states), strict=True))
  rows = [
    [{k: v for k, v in row.items() if 'second' not in k} for row in read_metrics(path)]
    for path in (folder, clean)
  ]
  losses = [np.array([row['train/loss'] for row in table]) for table in rows]
  return {
    'arrays of the state': len(pairs),
    'that differ': sum(not np.array_equal(one, other) for one, other in pairs),
    'greatest difference of a parameter': max(
      float(np.max(np.abs(one - other)))
      for one, other in zip(*(jax.tree.leaves(state.parameters) for state in states), strict=True)
    ),
    'metrics lines': len(rows[1]),
    'lines that differ': sum(one != other for one, other in zip(*rows, strict=True)),
    'greatest relative difference of a loss': float(np.max(np.abs(losses[0] / losses[1] - 1))),
  }


def main(_):
  """Runs the unfinished parts, and writes and prints the results."""
  runs = pathlib.Path(RUNS.value).absolute()
  clean = runs / 'clean'
  if not (clean / 'results.json').exists() and start(clean, DEVICES).wait():
    raise RuntimeError(f'the run did not end well, see {clean}/printed.txt')
  results = {}
  for name, kinds in (('same devices', SAME_DEVICES), ('other devices', OTHER_DEVICES)):
    folder = runs / name.replace(' ', '_')
    faults = suffer(folder, kinds)
    results[name] = {'faults': faults, 'differences': compare(folder, clean)}
  records.write(report.RESULTS, results)
  for table in report.TABLES.values():
    print(f'\n{table()}')


if __name__ == '__main__':
  app.run(main)
