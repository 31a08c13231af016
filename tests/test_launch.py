"""The front door, as a user calls it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def launch(*arguments, cwd):
  environment = {k: v for k, v in os.environ.items() if k not in ('XLA_FLAGS', 'PYTHONPATH')}
  return subprocess.run(
    [sys.executable, ROOT / 'launch.py', *arguments],
    cwd=cwd,
    env=environment | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def smoke(*arguments, cwd):
  return launch(f'--config={ROOT}/configs/clip.py:smoke', *arguments, cwd=cwd)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('launch')
  done = smoke('--config.total_steps=3', cwd=folder)
  assert done.returncode == 0, done.stderr
  return folder / 'runs' / 'clip-smoke', done.stdout


def test_a_run_leaves_what_the_readme_says(finished):
  workdir, printed = finished
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert [row['step'] for row in rows] == [1, 2, 3]
  assert {'train/loss', 'train/images_per_second', 'train/learning_rate'} <= rows[0].keys()
  results = json.loads((workdir / 'results.json').read_text())
  for split in ('heldout_style', 'heldout_composition'):
    for direction in ('image_to_text', 'text_to_image'):
      for k in (1, 5, 10):
        assert 0 <= results[f'{split}/{direction}_recall@{k}'] <= 1
    for field in ('group', 'subgroup'):
      assert 0 <= results[f'{split}/zero_shot_{field}_accuracy@1'] <= 1
  assert results['step'] == 3
  assert json.loads((workdir / 'config.json').read_text())['total_steps'] == 3
  assert '<html' in (workdir / 'report.html').read_text()
  assert list((workdir / 'tensorboard').iterdir())
  assert sorted(p.name for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit())[-1] == '3'
  assert 'step 3/3' in printed and 'image/transformer' in printed and 'recall@1' in printed


def test_evaluating_a_finished_run_gives_the_same_figures(finished):
  workdir, _ = finished
  before = json.loads((workdir / 'results.json').read_text())
  metrics = (workdir / 'metrics.jsonl').read_text()
  (workdir / 'results.json').unlink()
  done = launch('--mode=evaluate', f'--workdir={workdir}', cwd=workdir)
  assert done.returncode == 0, done.stderr
  after = json.loads((workdir / 'results.json').read_text())
  assert {k: v for k, v in after.items() if 'second' not in k} == {
    k: v for k, v in before.items() if 'second' not in k
  }
  assert (workdir / 'metrics.jsonl').read_text() == metrics


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([f'--config={ROOT}/configs/clip.py:huge'], "no variant 'huge'"),
    ([f'--config={ROOT}/configs/clip.py:smoke', '--config.learning_rate=1'], 'learning_rate'),
    ([f'--config={ROOT}/configs/clip.py:smoke', '--config.batch_size=many'], 'batch_size'),
    ([f'--config={ROOT}/configs/clip.py:smoke', '--config.data.name=nothing'], 'config.data.name'),
    ([f'--config={ROOT}/configs/clip.py:smoke', '--mode=evaluate'], 'no checkpoint'),
    ([], 'give --config'),
  ],
)
def test_mistakes_are_named(arguments, message, tmp_path):
  done = launch(*arguments, cwd=tmp_path)
  assert done.returncode != 0
  assert message in done.stderr + done.stdout


def test_a_workdir_of_another_config_is_left_alone(finished):
  workdir, _ = finished
  before = {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()}
  done = smoke('--config.batch_size=8', f'--workdir={workdir}', cwd=workdir)
  assert done.returncode != 0 and 'config.batch_size = 16 there, 8 here' in done.stderr
  assert {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()} == before
