"""The front door, as a user calls it."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import contrastive_jax
from contrastive_jax import data, interop
from contrastive_jax.evaluation.zero_shot import read_classes
from tests.evaluation.test_benchmark import write_source
from tests.interop.models import model_of

ROOT = pathlib.Path(__file__).parent.parent


def launch(*arguments, cwd):
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  return subprocess.run(
    [sys.executable, ROOT / 'launch.py', *arguments],
    cwd=cwd,
    env=environment | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def smoke(*arguments, cwd, recipe='clip'):
  return launch(f'--config={ROOT}/configs/{recipe}.py:smoke', *arguments, cwd=cwd)


def of_another_version(workdir, to):
  """A copy of a run whose objective and optimizer this version does not know."""
  shutil.copytree(workdir, to)
  config = json.loads((to / 'config.json').read_text())
  config |= {'objective': {'another': 1.0}, 'optimizer': {'another': -1}}
  (to / 'config.json').write_text(json.dumps(config))
  return to


# Splits that open fast; both metrics and report compile anew for each of another size.
DATA = '--config.data.split=heldout_style', "--config.evaluation.splits=('heldout_style',)"


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('launch')
  tracker = (
    '--config.tracker=tests.training.test_trackers:Recorder',
    f'--config.tracker_options={{"path": "{folder}/events"}}',
  )
  done = smoke('--config.total_steps=3', *DATA, *tracker, cwd=folder)
  assert done.returncode == 0, done.stderr
  return folder / 'runs' / 'clip-smoke', done.stdout


def test_a_run_leaves_what_the_readme_says(finished):
  workdir, printed = finished
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert [row['step'] for row in rows] == [1, 2, 3]
  assert {'train/loss', 'train/images_per_second', 'train/learning_rate'} <= rows[0].keys()
  results = json.loads((workdir / 'results.json').read_text())
  for direction in ('image_to_text', 'text_to_image'):
    for k in (1, 5, 10):
      assert 0 <= results[f'heldout_style/{direction}_recall@{k}'] <= 1
  for field in ('group', 'subgroup'):
    assert 0 <= results[f'heldout_style/zero_shot_{field}_accuracy@1'] <= 1
  assert 0 <= results['heldout_style/alignment'] <= 4
  assert results['step'] == 3
  assert json.loads((workdir / 'config.json').read_text())['total_steps'] == 3
  assert '<html' in (workdir / 'report.html').read_text()
  assert list((workdir / 'tensorboard').iterdir())
  assert sorted(p.name for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit())[-1] == '3'
  assert 'step 3/3' in printed and 'image/transformer' in printed and 'recall@1' in printed


def test_a_run_is_mirrored_to_its_tracker(finished):
  workdir, _ = finished
  events = (workdir.parents[1] / 'events').read_text().splitlines()
  (start, _, config), *logs, (finish, results, report, images), end = map(json.loads, events)
  assert (start, finish, end) == ('start', 'finish', ['close', False])
  assert config == json.loads((workdir / 'config.json').read_text())
  rows = [{'step': step} | metrics for _, step, metrics in logs]
  assert rows == [*map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())]
  assert results == json.loads((workdir / 'results.json').read_text())
  assert report == (workdir / 'report.html').read_text()
  assert {*images} == {'heldout_style/retrieved'}
  for group in images.values():
    assert [size for _, *size in group] == [[5 * 32, 32]] * 8
  assert json.loads((workdir / 'tracker.json').read_text())['run_id'] == 'id of clip-smoke'


@pytest.mark.slow
@pytest.mark.parametrize(
  ('recipe', 'terms'), [('coca', {'train/info_nce', 'train/captioning'}), ('siglip', set())]
)
def test_the_other_recipes_run(recipe, terms, tmp_path):
  done = smoke(cwd=tmp_path, recipe=recipe)
  assert done.returncode == 0, done.stderr
  workdir = tmp_path / 'runs' / f'{recipe}-smoke'
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert [row['step'] for row in rows] == [1, 2]
  assert terms | {'train/loss'} <= rows[0].keys()
  results = json.loads((workdir / 'results.json').read_text())
  assert 0 <= results['heldout_style/image_to_text_recall@10'] <= 1
  captions = {'heldout_style/caption_exact_match', 'heldout_composition/retrieved_caption_bleu_4'}
  page = (workdir / 'report.html').read_text()
  assert (captions <= results.keys()) == ('Generated captions' in page) == (recipe == 'coca')
  assert not any('caption_' in name for name in rows[-1])


@pytest.mark.slow
def test_evaluating_a_finished_run_gives_the_same_figures(finished, tmp_path):
  workdir = of_another_version(finished[0], tmp_path / 'run')
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


SMOKE = f'--config={ROOT}/configs/clip.py:smoke'
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    slow([f'--config={ROOT}/configs/clip.py:huge'], "no variant 'huge'"),
    ([SMOKE, '--config.data.name=nothing'], 'config.data.name'),
    slow([SMOKE, '--mode=evaluate'], 'no checkpoint'),
    slow([], 'give --config'),
    slow([SMOKE, '--config.tracker=comet'], "config.tracker = 'comet' is unknown"),
    slow([SMOKE, '--config.learning_rate=1'], 'learning_rate'),
    slow([SMOKE, '--config.batch_size=many'], 'batch_size'),
    slow([SMOKE, '--mode=plan', '--topology=8'], '--topology=8'),
    slow(['--workdir=runs/0', '--workdir=runs/1'], '--workdir is given twice'),
    slow([SMOKE, '--workdir=gs://b/run'], 'gs://b/run is a URL'),
    slow([SMOKE, '--workdir=lr[1]'], 'lr[1] has a bracket'),
    slow(['--mode=evaluate', '--model=runs/0'], '--model and --data go together'),
    slow(['--mode=evaluate', '--model=runs/0', '--data=emoji'], 'runs/0 holds no model'),
    slow(['--mode=evaluate', '--model=runs/0', '--data=jsonl:a.jsonl'], "names 'jsonl:a.jsonl'"),
  ],
)
def test_mistakes_are_named(arguments, message, tmp_path):
  done = launch(*arguments, cwd=tmp_path)
  assert done.returncode != 0
  assert message in done.stderr + done.stdout
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_runs_are_compared_with_the_first(finished, tmp_path):
  workdir, _ = finished
  done = launch('--mode=compare', f'--workdirs={workdir},{workdir}', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert '(+0.0 to +0.0)' in (workdir.parent / 'compare.html').read_text()
  done = launch('--mode=compare', f'--workdirs={workdir},nowhere', cwd=tmp_path)
  assert done.returncode != 0 and 'workdir nowhere holds no run' in done.stderr


@pytest.mark.slow
def test_an_exported_run_can_be_started_from(finished, tmp_path):
  workdir = of_another_version(finished[0], tmp_path / 'finished')
  done = launch('--mode=export', f'--workdir={workdir}', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert "image.stem = 'convolution' is not supported by open_clip" in done.stdout
  card = (workdir / 'export' / 'README.md').read_text()
  before = json.loads((workdir / 'results.json').read_text())
  for name in ('heldout_style/image_to_text_recall@10', 'heldout_style/zero_shot_group_accuracy@1'):
    assert f'| {name} | {before[name]:.4g} |' in card
  assert 'contrastive_jax.load(' in card and f'{before["parameters"]:,} parameters' in card

  started = [f'--config.init_from={workdir}/export', '--config.optimizer.learning_rate=0.0', *DATA]
  done = smoke(*started, f'--workdir={tmp_path}/run', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  after = json.loads((tmp_path / 'run' / 'results.json').read_text())
  for name in before.keys() - {'step', 'images_seen', 'seconds'}:
    assert after[name] == before[name], name

  # A resume reads the checkpoint and no initial weights, and may evaluate otherwise.
  (workdir / 'export').rename(workdir / 'moved')
  resumed = [*started, '--config.evaluation.splits=()', '--config.log_every=7']
  done = smoke(*resumed, f'--workdir={tmp_path}/run', cwd=tmp_path)
  (workdir / 'moved').rename(workdir / 'export')
  assert done.returncode == 0, done.stderr

  done = smoke(*started, '--config.model.embed=8', f'--workdir={tmp_path}/other', cwd=tmp_path)
  assert done.returncode != 0 and 'config.model.embed is 8, there 16' in done.stderr
  assert not (tmp_path / 'other').exists()


@pytest.mark.slow
def test_a_run_and_its_export_are_evaluated_without_a_config(finished, tmp_path):
  workdir = of_another_version(finished[0], tmp_path / 'run')
  done = launch('--mode=export', f'--workdir={workdir}', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  (workdir / 'export').rename(tmp_path / 'export')
  expected = json.loads((workdir / 'results.json').read_text())
  config = json.loads((workdir / 'config.json').read_text())
  _, names = read_classes('group', data.open_source('emoji', config['data']['split']).values)
  (tmp_path / 'groups.json').write_text(json.dumps(names))
  for model in (workdir, tmp_path / 'export'):
    done = launch(
      '--mode=evaluate',
      f'--model={model}',
      '--data=style=emoji:heldout_style,emoji:heldout_composition[vendor=noto]',
      '--tasks=retrieval,zero_shot:group=groups.json',
      *(f'--templates={template}' for template in config['evaluation']['templates']),
      cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert f'{model}/evaluation/benchmark.csv' in done.stdout and 'recall@1' in done.stdout
    found = json.loads((model / 'evaluation' / 'benchmark_style.json').read_text())['metrics']
    assert len(found) == 9
    assert found == {name: expected[f'heldout_style/{name}'] for name in found}
    lines = (model / 'evaluation' / 'benchmark.csv').read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith('acc1,acc5,mean_per_class_recall,image_')


@pytest.mark.slow
@pytest.mark.parametrize(
  ('write', 'name'), [(interop.write_open_clip, 'emoji'), (interop.write_hugging_face, 'clip')]
)
def test_weights_from_elsewhere_are_evaluated_on_any_source(write, name, tmp_path):
  tokenizer = data.open_tokenizer(name, 16)
  text = {'vocabulary': tokenizer.vocab_size, 'length': 16}
  model = model_of({'image': {'size': 32, 'patch': 8}, 'text': text}, end_id=tokenizer.end_id)
  write(model, tmp_path / 'model')
  source = write_source(tmp_path / 'data', [{'caption': f'a red heart {i}'} for i in range(20)])
  evaluate = '--mode=evaluate', '--model=model', f'--data=hearts={source}'
  given = [] if name == 'clip' else [f'--tokenizer={name}']  # CLIP's has as many ids
  if given:
    done = launch(*evaluate, cwd=tmp_path)
    assert done.returncode != 0 and 'needs a --tokenizer' in done.stderr
  done = launch(*evaluate, *given, '--workdir=out', '--batch_size=8', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert {path.name for path in (tmp_path / 'out').iterdir()} == {
    'benchmark_hearts.json',
    'benchmark.csv',
  }
  found = json.loads((tmp_path / 'out' / 'benchmark_hearts.json').read_text())
  loaded = contrastive_jax.load(tmp_path / 'model', tokenizer=name)
  images = sorted((tmp_path / 'data').glob('*.png'), key=lambda path: int(path.stem))
  cosines = (
    loaded.encode_image(images) @ loaded.encode_text([f'a red heart {i}' for i in range(20)]).T
  )
  right = np.argmax(cosines, axis=1) == np.arange(20)
  assert found['metrics']['image_to_text_recall@1'] == pytest.approx(right.mean())
  assert found['pretrained'] == 'model' and not (tmp_path / 'model' / 'evaluation').exists()


@pytest.mark.slow
def test_a_workdir_of_another_config_is_left_alone(finished):
  workdir, _ = finished
  before = {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()}
  done = smoke('--config.batch_size=8', *DATA, f'--workdir={workdir}', cwd=workdir)
  assert done.returncode != 0 and 'config.batch_size = 16 there, 8 here' in done.stderr
  assert {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()} == before


@pytest.mark.slow
def test_a_plan_opens_no_data_and_needs_no_devices(tmp_path):
  done = smoke('--mode=plan', '--topology=h100:4', '--config.data.name=none', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert 'Compiled for CPU devices in place of NVIDIA H100' in done.stdout
  figures = json.loads((tmp_path / 'runs' / 'clip-smoke' / 'plan_h100_4.json').read_text())
  assert figures['fits'] and figures['devices'] == 4
  assert [path.name for path in (tmp_path / 'runs' / 'clip-smoke').iterdir()] == [
    'plan_h100_4.json'
  ]
