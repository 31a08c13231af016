"""Two processes of two devices each, as launch.py starts them, against one process of four."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import clip
from contrastive_jax.training.logger import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 24
CONFIG = (
  f'--config.total_steps={STEPS}',
  '--config.checkpoint_every=3',
  '--config.mesh=data:2,fsdp:2',
  '--config.data.split=heldout_composition',
  "--config.evaluation.splits=('heldout_composition',)",
)


def start(workdir, devices, *arguments, recipe='clip'):
  flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
  config = (f'--config={ROOT}/configs/{recipe}.py:smoke', *CONFIG)
  return subprocess.Popen(
    [sys.executable, ROOT / 'launch.py', *config, f'--workdir={workdir}', *arguments],
    env=os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def start_two(workdir, *arguments, recipe='clip'):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  joined = (*arguments, f'--coordinator=127.0.0.1:{port}', '--processes=2')
  return [start(workdir, 2, *joined, f'--process={number}', recipe=recipe) for number in range(2)]


def finish(*processes):
  try:
    printed = [process.communicate(timeout=240)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0] * len(processes), printed
  return printed


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  folder = tmp_path_factory.mktemp('alone') / 'run'
  finish(start(folder, 4))
  return folder


def assert_alike(folder, alone):
  rows, expected = read_metrics(folder), read_metrics(alone)
  assert [row['step'] for row in rows] == list(range(1, STEPS + 1))
  for name in ('train/loss', 'train/gradient_norm', 'train/scale'):
    found, wanted = ([row[name] for row in table] for table in (rows, expected))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('recipe', ['coca', 'naflex'])
def test_two_processes_train_a_recipe_as_one(recipe, tmp_path):
  finish(start(tmp_path / 'one', 4, recipe=recipe))
  finish(*start_two(tmp_path / 'two', recipe=recipe))
  assert_alike(tmp_path / 'two', tmp_path / 'one')


@pytest.mark.slow
def test_two_processes_preempted_and_resumed_equal_one(alone, tmp_path):
  processes = start_two(tmp_path)
  deadline = time.monotonic() + 200
  while len(read_metrics(tmp_path)) < 3 and time.monotonic() < deadline:
    time.sleep(0.02)
  processes[1].send_signal(signal.SIGTERM)  # to one of them; both save and stop
  finish(*processes)
  *_, newest = sorted((tmp_path / 'checkpoints').iterdir(), key=lambda path: int(path.name))
  assert 3 <= int(newest.name) < STEPS
  # Both reject a checkpoint that one of them cannot read, or reads with other bits.
  path = max((path for path in newest.rglob('*') if path.is_file()), key=lambda p: p.stat().st_size)
  bits = bytearray(path.read_bytes())
  bits[len(bits) // 2] ^= 1
  path.write_bytes(bits)
  first, second = finish(*start_two(tmp_path))
  assert list((tmp_path / 'checkpoints').glob(f'damaged_{newest.name}_*'))
  assert 'recall@1' in first and 'recall@1' not in second  # only the first prints metrics
  assert_alike(tmp_path, alone)
  results, wanted = (
    json.loads((folder / 'results.json').read_text()) for folder in (tmp_path, alone)
  )
  assert results.keys() == wanted.keys()
  for name in results:
    if '@' in name:
      assert results[name] == pytest.approx(wanted[name], abs=0.01), name


def test_an_error_on_the_first_process_ends_both(tmp_path):
  (tmp_path / 'config.json').write_text(clip.get_config('smoke').to_json())
  processes = start_two(tmp_path, '--config.batch_size=8')
  printed = [process.communicate(timeout=240)[0] for process in processes]
  assert all(process.returncode == 1 for process in processes)
  assert all('config.batch_size = 16 there, 8 here' in text for text in printed), printed


JOIN = """
import sys
import jax
from contrastive_jax.runtime import processes
processes_given = int(sys.argv[1]) if sys.argv[1:] else None
with processes.distributed(None, processes_given, seconds=4):
  print('alone of', jax.process_count())
"""
# Variables of an interactive step, as in `salloc -n 2`
SLURM = {
  'SLURM_JOB_ID': '77',
  'SLURM_STEP_NODELIST': 'localhost',
  'SLURM_NTASKS': '2',
  'SLURM_PROCID': '0',
  'SLURM_LOCALID': '0',
}


def join(*arguments, **variables):
  return subprocess.run(
    [sys.executable, '-c', JOIN, *arguments],
    env=os.environ | {'JAX_PLATFORMS': 'cpu'} | variables,
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_missing_process_flags_are_an_error():
  done = join('2')
  assert done.returncode != 0 and 'Give all three, such as --coordinator=' in done.stderr


def test_waiting_for_a_missing_process_times_out():
  done = join(**SLURM)
  described = r'process 0 of 2, .* localhost:\d+\. .*SLURM_NTASKS=2 SLURM_PROCID=0.*--processes=1'
  assert re.search(
    rf'waiting until \d\d:\d\d:\d\d \([34] s left\) for all processes.* {described}', done.stderr
  )
  assert re.search(
    rf'after 4 seconds, gave up waiting for all processes to start: .*{described}', done.stderr
  )
  assert done.returncode == 1 and 'Fatal' not in done.stderr and 'Abort' not in done.stderr


def test_the_processes_flag_overrides_the_scheduler():
  done = join('1', **SLURM)
  assert done.returncode == 0 and done.stdout == 'alone of 1\n', done.stderr


def test_inconsistent_variables_of_a_scheduler_are_an_error():
  done = join(**SLURM | {'SLURM_PROCID': '2'})
  assert done.returncode == 1 and 'SLURM_PROCID=2' in done.stderr
  assert '--processes=1 for a process that trains alone' in done.stderr
