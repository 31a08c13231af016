"""Every mode of launch.py on a workdir in a bucket, which reads what a local one holds."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import contrastive_jax
from contrastive_jax import data
from contrastive_jax.data.images import decode
from contrastive_jax.runtime import buckets
from contrastive_jax.runtime.lease import Lease
from contrastive_jax.training.logger import read_metrics
from tests import bucket_servers

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = (
  f'--config={ROOT}/configs/clip.py:smoke',
  *('--config.total_steps=4', '--config.data.split=heldout_composition', '--config.profile=1'),
  "--config.evaluation.splits=('heldout_composition',)",
)
EXPORTED = {'README.md', 'config.json', 'model.safetensors'}


@pytest.fixture(scope='module', params=['s3', 'gs'])
def bucket(request):
  with bucket_servers.bucket(request.param) as url:
    yield url


def launch(*arguments, status=0):
  done = subprocess.run(
    [sys.executable, ROOT / 'launch.py', *arguments],
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=400,
  )
  assert done.returncode == status, done.stdout + done.stderr
  return done.stdout + done.stderr


def names(folder):
  return {path.name for path in folder.iterdir()}


def test_every_mode_works_in_a_bucket(bucket, tmp_path):
  run, local = f'{bucket}/runs/clip', tmp_path / 'clip'
  launch(*CONFIG, f'--workdir={run}')
  launch(*CONFIG, f'--workdir={local}')
  folder = buckets.open_path(run)
  # Locks differ: a file that is locked, and an object that is released.
  assert names(folder) - {'lock.1'} == names(local) - {'lock'}
  assert [line['train/loss'] for line in read_metrics(folder)] == [
    line['train/loss'] for line in read_metrics(local)
  ]
  assert list((folder / 'profile/plugins/profile').iterdir())

  launch('--mode=evaluate', f'--workdir={run}')
  message = launch('--mode=export', f'--workdir={run}')
  assert f'{run}/export holds the model' in message
  assert names(folder / 'export') >= EXPORTED
  for name in EXPORTED:
    assert (folder / 'export' / name).stat().length > 0
  launch('--mode=compare', f'--workdirs={run},{local}')
  assert (folder.parent / 'compare.html').exists()
  launch('--mode=plan', *CONFIG, f'--workdir={run}', '--topology=cpu:2')
  assert (folder / 'plan_cpu_2.json').exists()

  images = [data.open_source('emoji', 'heldout_composition')[0]['image']]
  pixels = [decode(image) for image in images]
  embedded = [contrastive_jax.load(place).encode_image(pixels) for place in (run, local)]
  np.testing.assert_array_equal(*embedded)
  with pytest.raises(ValueError, match='holds no checkpoints; of buckets only the workdir'):
    contrastive_jax.load(f'{run}/export')


def test_mistakes_are_named(bucket):
  scheme = bucket.partition('://')[0]
  message = launch(*CONFIG, f'--workdir={scheme}://nowhere/run', status=1)
  assert f'workdir {scheme}://nowhere/run: there is no bucket {scheme}://nowhere' in message
  lease = Lease(buckets.open_path(f'{bucket}/runs/held'))
  message = launch(*CONFIG, f'--workdir={bucket}/runs/held', status=1)
  assert f'runs/held is in use by process {os.getpid()} on' in message
  lease.release()
