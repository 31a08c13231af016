"""Trackers mirror a run, continue with it, and never end it."""

import importlib.util
import json
import logging
import pathlib
import time

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from contrastive_jax.training import trackers
from contrastive_jax.training.logger import open_logger, read_metrics

HERE = 'tests.training.test_trackers'
IMAGES = {'split/retrieved': [('a red fish', Image.fromarray(np.zeros((8, 40, 3), np.uint8)))]}
ROWS = [(step, {'train/loss': 1 / step, 'split/recall@1': 0.5}) for step in (1, 2, 3)]


class Recorder:
  """A tracker that appends to a file what it receives, and fails while there is a file 'down'."""

  def __init__(self, config, workdir, run_id, path):
    self.run_id, self._path = run_id or f'id of {workdir.name}', pathlib.Path(path)
    self._write('start', run_id, config)

  def _write(self, *event):
    if (self._path.parent / 'down').exists():
      raise ConnectionError('the server is down')
    with self._path.open('a') as file:
      file.write(json.dumps(event) + '\n')

  def log(self, step, metrics):
    self._write('log', step, metrics)

  def finish(self, results, report, images):
    sizes = {name: [(text, *image.size) for text, image in group] for name, group in images.items()}
    self._write('finish', results, report, sizes)

  def close(self, failed):
    self._write('close', failed)


def config_of(tracker, **options):
  return ConfigDict({'seed': 7, 'tracker': tracker, 'tracker_options': options})


@pytest.fixture
def recorded(tmp_path):
  """A config with a `Recorder`, and a function that reads what it received."""
  path = tmp_path / 'events'
  config = config_of(f'{HERE}:Recorder', path=str(path))
  return config, lambda: [json.loads(line) for line in path.read_text().splitlines()]


def run(config, workdir, rows, step=0):
  """Logs some rows, and then finishes."""
  workdir.mkdir(exist_ok=True)
  (workdir / 'report.html').write_text('<html>')
  with (
    trackers.open_tracker(config, workdir) as tracking,
    open_logger(workdir, step=step, total_steps=3, tracking=tracking) as logger,
  ):
    for row in rows:
      logger.write(*row)
    tracking.finish({'step': 3, 'recall@1': 0.5}, workdir / 'report.html', lambda: IMAGES)


def test_a_tracker_receives_the_config_the_rows_and_the_results(tmp_path, recorded):
  config, events = recorded
  run(config, tmp_path / 'run', ROWS)
  assert events() == [
    ['start', None, config.to_dict()],
    *(['log', *row] for row in ROWS),
    [
      'finish',
      {'step': 3, 'recall@1': 0.5},
      '<html>',
      {'split/retrieved': [['a red fish', 40, 8]]},
    ],
    ['close', False],
  ]
  assert [line['step'] for line in read_metrics(tmp_path / 'run')] == [1, 2, 3]


def test_a_resumed_run_continues_the_trackers_run(tmp_path, recorded):
  config, events = recorded
  with pytest.raises(KeyboardInterrupt), trackers.open_tracker(config, tmp_path) as tracking:
    tracking.log(*ROWS[0])
    raise KeyboardInterrupt
  assert events()[-1] == ['close', True]
  with trackers.open_tracker(config, tmp_path):
    pass
  (start,) = [event for event in events()[3:] if event[0] == 'start']
  assert start[1] == f'id of {tmp_path.name}'


def test_another_tracker_starts_a_run_of_its_own(tmp_path, recorded):
  config, events = recorded
  (tmp_path / 'tracker.json').write_text('{"tracker": "wandb", "run_id": "w1"}')
  with trackers.open_tracker(config, tmp_path):
    pass
  assert events()[0][:2] == ['start', None]
  assert json.loads((tmp_path / 'tracker.json').read_text())['tracker'] == config.tracker


def test_a_tracker_that_fails_in_mid_run_is_a_warning_and_catches_up(tmp_path, recorded, caplog):
  config, events = recorded
  down = tmp_path / 'down'
  workdir = tmp_path / 'run'
  workdir.mkdir()
  with (
    caplog.at_level(logging.WARNING),
    trackers.open_tracker(config, workdir) as tracking,
    open_logger(workdir, step=0, total_steps=3, tracking=tracking) as logger,
  ):
    logger.write(*ROWS[0])
    down.touch()
    logger.write(*ROWS[1])
    assert [line['step'] for line in read_metrics(workdir)] == [1, 2]
    down.unlink()
    tracking._due = 0.0
    logger.write(*ROWS[2])
  assert 'did not take metrics' in caplog.text and 'the server is down' in caplog.text
  assert [event[1] for event in events() if event[0] == 'log'] == [1, 2, 3]


def test_a_tracker_that_stays_down_ends_nothing(tmp_path, recorded, caplog):
  config, events = recorded
  with trackers.open_tracker(config, tmp_path) as tracking:
    (tmp_path / 'down').touch()
    for row in ROWS:
      tracking.log(*row)
    tracking.finish({'step': 3}, tmp_path / 'report.html', lambda: IMAGES)
  assert [event[0] for event in events()] == ['start']
  assert 'lacks 3 lines' in caplog.text and 'did not take the results' in caplog.text


def test_a_slow_failure_is_not_repeated_at_every_step():
  calls = []

  class Slow:
    def log(self, step, metrics):
      calls.append(step)
      time.sleep(0.05)
      raise TimeoutError

  tracking = trackers.Tracking(Slow(), 'slow')
  for step in (1, 2, 3):
    tracking.log(step, {})
  assert calls == [1]


def test_only_the_first_process_has_a_tracker(tmp_path, recorded, monkeypatch):
  config, _ = recorded
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with trackers.open_tracker(config, tmp_path) as tracking:
    tracking.log(*ROWS[0])
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('tracker', 'message'),
  [
    ('comet', r"tracker = 'comet' is unknown; use one of \['mlflow', 'wandb'\], 'module:function'"),
    ('no_module:start', r"'no_module:start' cannot be imported: No module named 'no_module'"),
    (f'{HERE}:start', r"cannot be imported: .*has no attribute 'start'"),
    (f'{HERE}:ROWS', r'is unknown; use one of'),
  ],
)
def test_an_unknown_tracker_is_an_error(tracker, message):
  with pytest.raises(ValueError, match=message):
    trackers.find_tracker(tracker)


@pytest.mark.parametrize('name', ['wandb', 'mlflow'])
def test_a_missing_package_is_named_with_its_extra(name):
  if importlib.util.find_spec(name):
    pytest.skip(f'{name} is installed')
  message = rf"config\.tracker = '{name}' needs the package {name}: pip install .*\[{name}\]"
  with pytest.raises(ValueError, match=message):
    trackers.find_tracker(name)


def test_a_tracker_that_does_not_start_is_an_error_with_its_options(tmp_path, recorded):
  config, _ = recorded
  (tmp_path / 'down').touch()
  with pytest.raises(ValueError, match=r'tracker_options = .*path.* did not start: .*is down'):
    trackers.open_tracker(config, tmp_path)
  config.tracker_options = ConfigDict({'folder': 1})
  with pytest.raises(ValueError, match=r'did not start: TypeError.*folder'):
    trackers.open_tracker(config, tmp_path)


@pytest.mark.slow
def test_wandb_offline(tmp_path, monkeypatch):
  pytest.importorskip('wandb', reason='pip install -e .[wandb]')
  monkeypatch.setenv('WANDB_SILENT', 'true')
  config = config_of('wandb', project='tests', mode='offline')
  run(config, tmp_path / 'run', ROWS)
  first = json.loads((tmp_path / 'run' / 'tracker.json').read_text())['run_id']
  run(config, tmp_path / 'run', ROWS[1:], step=1)
  assert json.loads((tmp_path / 'run' / 'tracker.json').read_text())['run_id'] == first
  folders = sorted((tmp_path / 'run' / 'wandb').glob('offline-run-*'))
  assert len(folders) == 2 and all(folder.name.endswith(first) for folder in folders)
  for folder in folders:
    assert (
      list(folder.glob('*.wandb')) and list(folder.rglob('*.png')) and list(folder.rglob('*.html'))
    )


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_mlflow_in_a_local_folder(tmp_path):
  mlflow = pytest.importorskip('mlflow', reason='pip install -e .[mlflow]')
  uri = f'sqlite:///{tmp_path}/mlflow.db'
  config = config_of('mlflow', tracking_uri=uri, experiment='tests')
  client = mlflow.MlflowClient(uri)
  client.create_experiment('tests', artifact_location=(tmp_path / 'artifacts').as_uri())
  with pytest.raises(KeyboardInterrupt), trackers.open_tracker(config, tmp_path) as tracking:
    tracking.log(*ROWS[0])
    raise KeyboardInterrupt
  run_id = json.loads((tmp_path / 'tracker.json').read_text())['run_id']
  assert client.get_run(run_id).info.status == 'FAILED'
  run(config, tmp_path, ROWS[1:], step=1)
  assert json.loads((tmp_path / 'tracker.json').read_text())['run_id'] == run_id
  found = client.get_run(run_id)
  assert found.info.status == 'FINISHED' and found.data.params['seed'] == '7'
  assert found.data.metrics['final/recall_1'] == 0.5
  history = client.get_metric_history(run_id, 'split/recall_1')
  assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.5), (3, 0.5)]
  assert [file.path for file in client.list_artifacts(run_id)] == ['report.html', 'split']
  assert client.list_artifacts(run_id, 'split/retrieved')[0].path.endswith('0_a_red_fish.png')
