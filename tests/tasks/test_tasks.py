"""A task goes through the one entry, from its config to results.json."""

import json

import pytest
from ml_collections import ConfigDict

from contrastive_jax import tasks
from contrastive_jax.training import workdir

CONFIG = ConfigDict({'name': 'count', 'variant': 'default', 'task': 'count', 'upto': 3})


@pytest.fixture(autouse=True)
def task(monkeypatch):
  def open_count(config):
    if config.upto < 1:
      raise ValueError(f'config.upto = {config.upto}; use a number over 0')
    return lambda folder: {'count': float(config.upto)}

  monkeypatch.setitem(tasks.TASKS, 'count', open_count)


def test_a_run_writes_its_config_and_results(tmp_path):
  with workdir.unlocking():
    results = tasks.run(CONFIG, tmp_path)
  assert json.loads((tmp_path / 'results.json').read_text()) == results
  assert results['count'] == 3 and results['seconds'] > 0
  assert workdir.read_config(tmp_path) == CONFIG, 'no field of another kind of run joins'


def test_a_config_that_cannot_work_leaves_no_workdir(tmp_path):
  bad = ConfigDict(CONFIG.to_dict() | {'upto': 0})
  with pytest.raises(ValueError, match=r'config\.upto = 0; use a number over 0'):
    tasks.run(bad, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_an_unknown_task_is_named():
  with pytest.raises(ValueError, match=r"config\.task = 'none' is no task; use one of .*'count'"):
    tasks.open_task(ConfigDict({'task': 'none'}))
