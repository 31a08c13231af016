"""Experiment trackers: Weights & Biases, MLflow, or any other by the name of a function.

A tracker is a mirror of the run on its first process. metrics.jsonl, results.json and report.html
in the workdir are complete without it.
"""

import collections
import importlib
import importlib.util
import json
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
from absl import logging
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from contrastive_jax.runtime import buckets, processes
from contrastive_jax.runtime.waiting import waiting

# Captions and images, PIL's, by the name of a group.
Images = Mapping[str, Sequence[tuple[str, Any]]]

# Share of the time that calls of a failing tracker may take.
_FAILING_SHARE = 0.05
_FILE = 'tracker.json'  # in the workdir: the tracker and the id of its run


class Tracker(Protocol):
  """What a function in `config.tracker` returns. Any method may raise: the run goes on.

  The function is called as

      function(config=…, workdir=…, run_id=…, **config.tracker_options)

  with the config as a nested dict, the workdir as a `pathlib.Path`, and the `run_id` that the
  tracker had when the run was interrupted, or None.

  Attributes:
    run_id: a string by which the function finds the tracker's run again.
  """

  run_id: str

  def log(self, step: int, metrics: Mapping[str, float]) -> None:
    """Logs the metrics of a step. A resumed run repeats the steps after its checkpoint."""

  def finish(self, results: Mapping[str, float], report: str, images: Images) -> None:
    """Logs the final evaluation, the report as HTML, and its retrieved images."""

  def close(self, failed: bool) -> None:
    """Ends the tracker's run; `failed` if the run was interrupted, or ended by an error."""


class WandB:
  """Weights & Biases. Options are those of `wandb.init`."""

  def __init__(self, *, config, workdir: pathlib.Path, run_id: str | None, **options):
    """Starts a run, or continues the run of an id."""
    import wandb

    self._wandb = wandb
    # wandb writes to local folders only.
    own = {} if buckets.is_bucket(workdir) else {'dir': str(workdir)}
    own |= {'project': 'contrastive_jax', 'name': workdir.name, 'config': config}
    resumed = {} if run_id is None else {'id': run_id, 'resume': 'allow'}
    self._run = wandb.init(**(own | options | resumed))
    self.run_id = self._run.id
    # wandb's own counter refuses the steps that a resumed run repeats.
    self._run.define_metric('*', step_metric='step')

  def log(self, step, metrics):
    """See `Tracker`."""
    self._run.log({'step': step, **metrics})

  def finish(self, results, report, images):
    """See `Tracker`."""
    self._run.summary.update(dict(results))
    groups = {
      name: [self._wandb.Image(image, caption=caption) for caption, image in group]
      for name, group in images.items()
    }
    self._run.log({'report': self._wandb.Html(report, inject=False), **groups})

  def close(self, failed):
    """See `Tracker`."""
    self._run.finish(exit_code=int(failed))


class MLflow:
  """MLflow.

  Options are `tracking_uri`, `experiment` and `run_name`; without a URI, MLflow's own settings
  apply.
  """

  def __init__(
    self,
    *,
    config,
    workdir: pathlib.Path,
    run_id: str | None,
    tracking_uri: str | None = None,
    experiment: str = 'contrastive_jax',
    run_name: str | None = None,
  ):
    """Starts a run, or continues the run of an id."""
    from mlflow import MlflowClient, entities

    self._entities, self._client = entities, MlflowClient(tracking_uri)
    if run_id is None:
      found = self._client.get_experiment_by_name(experiment)
      number = found.experiment_id if found else self._client.create_experiment(experiment)
      run_id = self._client.create_run(number, run_name=run_name or workdir.name).info.run_id
      self._log_parameters(run_id, flatten_dict(config, sep='.'))
    else:
      self._client.update_run(run_id, status='RUNNING')
    self.run_id = run_id

  def _log_parameters(self, run_id, fields, batch: int = 100):
    """Logs the config; a call takes up to 100 fields, of 6,000 characters each."""
    parameters = [self._entities.Param(key, str(value)[:6000]) for key, value in fields.items()]
    for start in range(0, len(parameters), batch):
      self._client.log_batch(run_id, params=parameters[start : start + batch])

  def log(self, step, metrics):
    """See `Tracker`."""
    now, metric = int(1000 * time.time()), self._entities.Metric
    values = [metric(_accepted(name), value, now, step) for name, value in metrics.items()]
    for start in range(0, len(values), 1000):
      self._client.log_batch(self.run_id, metrics=values[start : start + 1000])

  def finish(self, results, report, images):
    """See `Tracker`."""
    self.log(int(results.get('step', 0)), {f'final/{k}': v for k, v in results.items()})
    self._client.log_text(self.run_id, report, 'report.html')
    for name, group in images.items():
      for number, (caption, image) in enumerate(group):
        file = f'{_accepted(name)}/{number}_{re.sub(r"[^A-Za-z0-9]+", "_", caption)[:60]}.png'
        self._client.log_image(self.run_id, image, file)

  def close(self, failed):
    """See `Tracker`."""
    self._client.set_terminated(self.run_id, 'FAILED' if failed else 'FINISHED')


def _accepted(name: str) -> str:
  """A name with '_' for the characters that MLflow refuses, such as the '@' of recall@1."""
  return re.sub(r'[^A-Za-z0-9_\-. :/]', '_', name)


TRACKERS: dict[str, Callable[..., Tracker]] = {'mlflow': MLflow, 'wandb': WandB}


class Tracking:
  """A context that mirrors a run to its tracker; a failure of the tracker is a warning.

  Metrics that a failing tracker did not take are logged again later.
  """

  def __init__(self, tracker: Tracker | None = None, name: str = ''):
    """Does nothing without a tracker; `name` is the one in the config."""
    self._tracker, self._name = tracker, name
    self._rows: collections.deque = collections.deque()
    self._due = 0.0

  def __enter__(self):
    return self

  def __exit__(self, kind, *_):
    if self._tracker is not None:
      failed = kind is not None
      self._guard(lambda tracker: tracker.close(failed), 'end its run')

  def log(self, step: int, metrics: Mapping[str, float]) -> None:
    """Logs the metrics of a step, and those before that the tracker did not take."""
    if self._tracker is not None:
      self._rows.append((step, metrics))
      if time.monotonic() >= self._due:
        self._send_rows()

  def finish(
    self, results: Mapping[str, float], report: pathlib.Path, images: Callable[[], Images]
  ) -> None:
    """Logs the final evaluation, the report, and images, which are made only for a tracker."""
    if self._tracker is None:
      return
    if self._rows:
      self._send_rows()
    if self._rows:
      logging.warning('config.tracker = %r lacks %d lines', self._name, len(self._rows))
    finish = lambda tracker: tracker.finish(results, report.read_text(), images())  # noqa: E731
    self._guard(finish, 'take the results')

  def _send_rows(self) -> None:
    def send(tracker):
      while self._rows:
        tracker.log(*self._rows[0])
        self._rows.popleft()

    start = time.monotonic()
    if not self._guard(send, 'take metrics'):
      now = time.monotonic()
      self._due = now + (now - start) / _FAILING_SHARE

  def _guard(self, action: Callable[[Any], None], what: str) -> bool:
    """Whether an action succeeded; otherwise warns."""
    try:
      with waiting(f'waiting for config.tracker = {self._name!r} to {what}'):
        action(self._tracker)
      return True
    except Exception as error:  # whatever a tracker raises
      logging.warning(
        'config.tracker = %r did not %s: %r. The run goes on; its workdir has all metrics.',
        *(self._name, what, error),
      )
      return False


def find_tracker(name: str) -> Callable[..., Tracker]:
  """Returns the function that starts the tracker of a name.

  Args:
    name: `config.tracker`: a key of `TRACKERS`, or 'module:function'.

  Raises:
    ValueError: if it is unknown, or needs a package that is not installed.
  """
  if name in TRACKERS:
    if importlib.util.find_spec(name) is None:
      raise ValueError(
        f'config.tracker = {name!r} needs the package {name}: pip install contrastive-jax[{name}]'
      )
    return TRACKERS[name]
  module, _, function = name.partition(':')
  try:
    found = getattr(importlib.import_module(module), function) if module and function else None
  except (ImportError, AttributeError) as error:
    raise ValueError(f'config.tracker = {name!r} cannot be imported: {error}') from error
  if not callable(found):
    raise ValueError(
      f"config.tracker = {name!r} is unknown; use one of {sorted(TRACKERS)}, 'module:function', or "
      "'' for none"
    )
  return found


def open_tracker(config: ConfigDict, workdir: pathlib.Path) -> Tracking:
  """Starts the tracker of a run on the first process, or continues the tracker's run.

  The id of the tracker's run is in tracker.json of the workdir.

  Args:
    config: of the run.
    workdir: of the run; it exists.

  Raises:
    ValueError: on all processes, if the tracker does not start.
  """
  if not config.tracker:
    return Tracking()
  opened: list[Tracker] = []
  processes.on_first_process(
    lambda: opened.append(_start(config, workdir)), f'starts config.tracker = {config.tracker!r}'
  )
  return Tracking(opened[0], config.tracker) if jax.process_index() == 0 else Tracking()


def _start(config: ConfigDict, workdir: pathlib.Path) -> Tracker:
  function, path = find_tracker(config.tracker), workdir / _FILE
  saved = json.loads(path.read_text()) if path.exists() else {}
  run_id = saved.get('run_id') if saved.get('tracker') == config.tracker else None
  options = config.tracker_options.to_dict()
  try:
    with waiting(f'starting config.tracker = {config.tracker!r}'):
      tracker = function(config=config.to_dict(), workdir=workdir, run_id=run_id, **options)
  except Exception as error:  # whatever a tracker raises
    raise ValueError(
      f'config.tracker = {config.tracker!r} with config.tracker_options = {options} did not start: '
      f"{error!r}; mend this, or use '' for none"
    ) from error
  path.write_text(json.dumps({'tracker': config.tracker, 'run_id': tracker.run_id}) + '\n')
  return tracker
