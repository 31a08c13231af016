"""Every config's smoke variant, and methods through the one entry; slow."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import contrastive_jax

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py'))
# One method per kind of state, by what `--mode=plan` reports of it.
METHODS = {
  'byolip': {'heads', 'targets'},
  'distill': {'teacher'},
  'moco': {'memory', 'targets'},
  'isogclr': {'memory'},
  'slip': {'heads'},
}
SMALL = (
  '--config.log_every=1',
  '--config.checkpoint_every=2',
  '--config.total_steps=4',
  '--config.batch_size=32',
)

pytestmark = pytest.mark.slow


def launch(*arguments, devices=1):
  """Runs launch.py on CPU devices; returns what it prints."""
  flags = f'--xla_force_host_platform_device_count={devices}'
  environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, 'launch.py', *map(str, arguments)]
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def losses(folder):
  rows = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  return [row['train/loss'] for row in rows if 'train/loss' in row]


def fingerprint(folder):
  """The checksum of the whole state after the last step."""
  progress = folder / 'checkpoints' / '4' / 'progress' / 'metadata'
  return json.loads(progress.read_text())['fingerprint']


@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_the_smoke_variant_trains(path, tmp_path):
  launch(f'--config={path}:smoke', f'--workdir={tmp_path / "run"}')
  assert len(losses(tmp_path / 'run')) == 2
  assert (tmp_path / 'run' / 'results.json').exists()


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize(('devices', 'parts'), [(1, 1), (8, 1), (1, 4), (8, 4)])
def test_a_method_trains_and_resumes_bit_for_bit(name, devices, parts, tmp_path):
  config = f'--config=configs/methods/{name}.py:smoke'
  own = (*SMALL, f'--config.micro_batches={parts}', '--config.mesh=data:-1')
  launch(config, *own, f'--workdir={tmp_path / "through"}', devices=devices)
  # A copy without the last checkpoint resumes after step 2, as a killed run does.
  shutil.copytree(tmp_path / 'through', tmp_path / 'killed')
  (tmp_path / 'killed' / 'checkpoints' / '4').rename(tmp_path / 'killed' / 'lost')
  launch(f'--workdir={tmp_path / "killed"}', devices=devices)
  through, killed = (losses(tmp_path / run) for run in ('through', 'killed'))
  assert through == killed and len(through) == 4
  assert fingerprint(tmp_path / 'through') == fingerprint(tmp_path / 'killed')


@pytest.mark.parametrize('name', METHODS)
def test_the_plan_shows_heads_and_memory_by_kind(name, tmp_path):
  config = f'--config=configs/methods/{name}.py:smoke'
  printed = launch('--mode=plan', '--topology=cpu:8', config, f'--workdir={tmp_path}')
  (path,) = tmp_path.glob('plan_*.json')
  kinds = json.loads(path.read_text())['memory']['kinds']
  assert all(kinds[kind] > 0 and kind in printed for kind in METHODS[name])


CONVOLUTIONAL = """
from ml_collections import ConfigDict

from configs import clip


def get_config(variant='smoke'):
  config = clip.get_config(variant)
  config.model.image = ConfigDict({image})
  config.model.image_projection = {projection!r}
  return config
"""
TOWERS = {
  'resnet': ({'width': 4, 'layers': (1, 1, 1, 1), 'heads': 4}, 'affine', 'open_clip'),
  # open_clip names ConvNeXts by timm's sizes, which this is none of.
  'convnext': ({'width': 8, 'layers': (1, 1, 1, 1)}, 'mlp', 'contrastive_jax'),
}


@pytest.mark.parametrize('tower', TOWERS)
def test_a_convolutional_tower_trains_resumes_and_is_exported(tower, tmp_path):
  image, projection, form = TOWERS[tower]
  image = {'tower': tower, 'size': 32, **image}
  path = tmp_path / 'config.py'
  path.write_text(CONVOLUTIONAL.format(image=image, projection=projection))
  own = (*SMALL, '--config.micro_batches=2', '--config.mesh=data:-1')
  folder = tmp_path / 'through'
  launch(f'--config={path}', *own, f'--workdir={folder}', devices=8)
  shutil.copytree(folder, tmp_path / 'killed')
  (tmp_path / 'killed' / 'checkpoints' / '4').rename(tmp_path / 'killed' / 'lost')
  launch(f'--workdir={tmp_path / "killed"}', devices=8)
  assert losses(folder) == losses(tmp_path / 'killed') and len(losses(folder)) == 4
  assert fingerprint(folder) == fingerprint(tmp_path / 'killed')
  before = (folder / 'results.json').read_text()
  launch('--mode=evaluate', f'--workdir={folder}', devices=8)
  metrics = [json.loads(text) for text in (before, (folder / 'results.json').read_text())]
  recalls = [{k: v for k, v in found.items() if 'recall' in k} for found in metrics]
  assert recalls[0] == recalls[1] and recalls[0]
  assert form in launch('--mode=export', f'--workdir={folder}')
  model = contrastive_jax.load(folder / 'export')
  pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
  assert model.encode_image(list(map(Image.fromarray, pixels))).shape == (2, 16)
  printed = launch('--mode=plan', '--search=0', f'--config={path}', f'--workdir={tmp_path}')
  assert ('by its own statistics' in printed) == (tower == 'resnet')
