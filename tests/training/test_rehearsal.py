"""A run on a pod, rehearsed: two processes, everything in a bucket, and everything that befalls."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from contrastive_jax import data
from contrastive_jax.data.sources import webdataset
from contrastive_jax.runtime import buckets
from contrastive_jax.training.logger import read_metrics
from contrastive_jax.training.workdir import finished_steps
from tests import bucket_servers

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 36
TIMED = ('train/images_per_second', 'train/step_seconds', 'train/data_wait_seconds')
# Longer than a process waits without a word.
LATE_SECONDS = 14


@pytest.fixture(params=['s3', 'gs'])
def bucket(request, tmp_path):
  """A bucket with 48 examples in three shards."""
  source = data.open_source('emoji', 'heldout_composition[:48]')
  with bucket_servers.bucket(request.param) as url:
    for number in range(3):
      path = tmp_path / f'pairs-{number:05}.tar'
      webdataset.write(str(path), [source[i] for i in range(16 * number, 16 * number + 16)])
      buckets.system_of(url).put_file(str(path), f'{url}/data/{path.name}')
    yield url


def start(bucket, workdir, printed, devices, *arguments):
  """Starts a process of the run, which prints to a file."""
  pairs = f'webdataset:{bucket}/data/pairs-{{00000..00002}}.tar'
  flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
  command = [
    *(sys.executable, ROOT / 'launch.py', f'--config={ROOT}/configs/clip.py:smoke'),
    *(f'--workdir={workdir}', f'--config.data.name={pairs}', '--config.data.split=train'),
    *(f'--config.total_steps={STEPS}', '--config.checkpoint_every=4', '--config.average_decay=0.9'),
    *(f"--config.evaluation.splits=('held={pairs}',)", '--config.evaluation.zero_shot=()'),
    *('--config.mesh=data:4,fsdp:2', *arguments),
  ]
  with printed.open('a') as file:
    return subprocess.Popen(
      command,
      env=os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
      stdout=file,
      stderr=subprocess.STDOUT,
    )


class Pod:
  """Two processes of four devices each on one workdir."""

  def __init__(self, bucket, workdir, folder):
    self.bucket, self.workdir = bucket, workdir
    self.printed = [folder / f'{workdir.name}_{number}.txt' for number in range(2)]
    self.processes = []

  def start(self, late=0.0):
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      joined = (f'--coordinator=127.0.0.1:{free.getsockname()[1]}', '--processes=2')
    for number, printed in enumerate(self.printed):
      arguments = (*joined, f'--process={number}')
      self.processes.append(start(self.bucket, self.workdir, printed, 4, *arguments))
      time.sleep(late * (number == 0))

  def wait_for_checkpoint(self, after):
    """Waits for a checkpoint after a step, and returns its step."""
    deadline = time.monotonic() + 240
    while (newest := max(finished_steps(self.workdir), default=0)) <= after:
      assert time.monotonic() < deadline and self.processes[0].poll() is None, self.text()
      time.sleep(0.05)
    assert newest < STEPS, 'the run ended before it was interrupted'
    return newest

  def end(self, status=0):
    """Waits until both processes have ended."""
    try:
      ended = [process.wait(timeout=600) for process in self.processes]
    finally:
      for process in self.processes:
        process.kill()
      self.processes = []
    assert ended == [status, status], self.text()

  def text(self):
    return '\n'.join(printed.read_text() for printed in self.printed)


def parameters_of(workdir):
  """The state of the last checkpoint, as NumPy arrays."""
  handler, folder = ocp.PyTreeCheckpointHandler(), workdir / f'checkpoints/{STEPS}/state'
  tree = handler.metadata(folder).tree
  as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
  return handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def damage(workdir, step):
  """Flips a bit of the largest object of a checkpoint."""
  system = buckets.system_of(workdir)
  sizes = system.find(f'{workdir}/checkpoints/{step}', detail=True)
  path = max(sizes, key=lambda path: sizes[path]['size'])
  bits = bytearray(system.cat_file(path))
  bits[len(bits) // 2] ^= 1
  system.pipe_file(path, bytes(bits))


def untimed(workdir):
  """The lines of metrics, without what depends on the machine's load."""
  return [
    {name: value for name, value in line.items() if name not in TIMED}
    for line in read_metrics(workdir)
  ]


def test_a_run_on_a_pod_ends_as_if_undisturbed(bucket, tmp_path):
  runs = [buckets.open_path(f'{bucket}/runs/{name}') for name in ('calm', 'rehearsed')]
  calm, pod = (Pod(bucket, run, tmp_path) for run in runs)
  calm.start()
  calm.end()

  pod.start(late=LATE_SECONDS)
  step = 0
  for preempted in (1, 0):  # one process of the two suffices
    pod.wait_for_checkpoint(step)
    pod.processes[preempted].send_signal(signal.SIGTERM)
    pod.end()
    step = max(finished_steps(pod.workdir))
    assert f'stopped by SIGTERM, saved at step {step}' in pod.text()
    pod.start()
  step = pod.wait_for_checkpoint(step)
  for process in pod.processes:
    process.send_signal(signal.SIGKILL)
  pod.end(-signal.SIGKILL)
  step = max(finished_steps(pod.workdir))
  damage(pod.workdir, step)
  pod.start()
  pod.end()

  # The same bits.
  states = [parameters_of(run) for run in runs]
  assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert untimed(pod.workdir) == untimed(calm.workdir)
  # Nothing lost.
  assert [line['step'] for line in read_metrics(pod.workdir)] == list(range(1, STEPS + 1))
  names = [{path.name for path in run.iterdir()} for run in runs]
  files = {'config.json', 'metrics.jsonl', 'results.json', 'outcomes.npz', 'report.html'}
  assert {name for name in names[0] if 'lock' not in name} == files | {'checkpoints', 'tensorboard'}
  assert {name for name in names[1] if 'lock' not in name} == files | {'checkpoints', 'tensorboard'}
  results = [json.loads((run / 'results.json').read_text()) for run in runs]
  assert {**results[0], 'seconds': 0} == {**results[1], 'seconds': 0}
  # Nothing silent.
  text = pod.text()
  assert re.search(rf'checkpoint {step} cannot be read, and is renamed to damaged_{step}_', text)
  assert list((pod.workdir / 'checkpoints').glob(f'damaged_{step}_*'))
  assert re.search(r'waiting until \S+ \(\d+ s left\) for all processes to start: .*0 of 2', text)
  # One process of eight devices.
  alone = start(bucket, tmp_path / 'alone', tmp_path / 'alone.txt', 8)
  assert alone.wait(timeout=300) == 0, (tmp_path / 'alone.txt').read_text()
  losses = [
    [line['train/loss'] for line in read_metrics(run)] for run in (pod.workdir, tmp_path / 'alone')
  ]
  np.testing.assert_allclose(*losses, rtol=1e-5)
