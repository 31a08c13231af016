"""Logs a run: progress on the terminal, metrics.jsonl, TensorBoard events and a tracker."""

import json
import pathlib

import jax
import rich.console
import rich.progress
import rich.table
import tensorboardX

from contrastive_jax.runtime import buckets
from contrastive_jax.runtime.waiting import waiting
from contrastive_jax.training.trackers import Tracking


def read_metrics(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Reads the lines of a run's metrics.jsonl, without a last line that a kill left incomplete."""
  path = workdir / 'metrics.jsonl'
  with waiting(f'reading {path}'):
    if not path.exists():
      return []
    text = path.read_text()
  complete = (line for line in text.splitlines(keepends=True) if line.endswith('\n'))
  return [json.loads(line) for line in complete]


def open_logger(
  workdir: pathlib.Path, *, step: int, total_steps: int, tracking: Tracking | None = None
):
  """Opens a `Logger` on the first process, and a `NullLogger` on all others."""
  if jax.process_index() != 0:
    return NullLogger()
  return Logger(workdir, step=step, total_steps=total_steps, tracking=tracking)


class NullLogger:
  """A logger that does nothing."""

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def advance(self, step: int) -> None:
    """Does nothing."""

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Does nothing."""

  def save(self) -> None:
    """Does nothing."""


class Logger:
  """Writes metrics to metrics.jsonl, TensorBoard and the tracker, and shows progress.

  The standard output gets a progress bar if it is a terminal, otherwise a line per call of `write`.
  In a bucket the files are written anew by `save`, at the end, and at times in between.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    step: int,
    total_steps: int,
    tracking: Tracking | None = None,
  ):
    """Opens the files, and removes lines of metrics.jsonl after `step`, where training resumes.

    Args:
      workdir: folder of metrics.jsonl and TensorBoard events.
      step: the last step of the checkpoint, 0 for a new run.
      total_steps: for the progress bar.
      tracking: the tracker; None for none.
    """
    self._tracking = tracking or Tracking()
    kept = [row for row in read_metrics(workdir) if row['step'] <= step]
    self._files = buckets.Mirror(workdir)
    folder = self._files.local
    rewritten = folder / 'metrics.jsonl.partial'
    rewritten.write_text(''.join(json.dumps(row) + '\n' for row in kept))
    rewritten.replace(folder / 'metrics.jsonl')
    self._lines = (folder / 'metrics.jsonl').open('a')
    self._events = tensorboardX.SummaryWriter(str(folder / 'tensorboard'), purge_step=step + 1)
    self._console = rich.console.Console()
    self._progress = rich.progress.Progress(
      rich.progress.TextColumn('step {task.completed}/{task.total}'),
      rich.progress.BarColumn(),
      rich.progress.TextColumn('{task.description}'),
      rich.progress.TextColumn('ETA'),
      rich.progress.TimeRemainingColumn(),
      console=self._console,
      disable=not self._console.is_terminal,
    )
    self._task = self._progress.add_task('', total=total_steps, completed=step)

  def __enter__(self):
    self._progress.start()
    return self

  def __exit__(self, *_):
    self._progress.stop()
    self._lines.close()
    self._events.close()
    self._files.close()

  def save(self) -> None:
    """Makes sure that all lines are in the workdir; call before the checkpoint of a later step."""
    if self._files.remote:
      self._events.flush()
      self._files.copy()

  def advance(self, step: int) -> None:
    """Moves the progress bar to a step."""
    self._progress.update(self._task, completed=step)

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Writes the metrics of a step; call at most once per step."""
    self._lines.write(json.dumps({'step': step} | metrics) + '\n')
    self._lines.flush()
    for name, value in metrics.items():
      self._events.add_scalar(name, value, step)
    self._tracking.log(step, metrics)
    if self._files.is_due:
      self._events.flush()
      self._files.copy_if_due()
    shown = '  '.join(
      f'{name.removeprefix("train/")} {metrics[name]:{form}}'
      for name, form in (('train/loss', '.3f'), ('train/images_per_second', '.0f'))
      if name in metrics
    )
    self._progress.update(self._task, description=shown.replace('images_per_second', 'images/s'))
    if not self._console.is_terminal:
      task = self._progress.tasks[0]
      recalls = [f'{k} {v:.3f}' for k, v in metrics.items() if k.endswith('recall@1')]
      self._console.print(
        f'step {step}/{task.total}  {"  ".join([task.description, *recalls])}'
        f'  ETA {_minutes(task.time_remaining)}',
        highlight=False,
        markup=False,
        soft_wrap=True,
      )


def _minutes(seconds: float | None) -> str:
  """Formats seconds as minutes:seconds."""
  return '?' if seconds is None else f'{int(seconds) // 60}:{int(seconds) % 60:02}'


def print_parameters(parameters) -> None:
  """Prints the number of parameters of each part of a model, two levels deep."""
  parts: dict[str, int] = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
    part = jax.tree_util.keystr(path[:2], simple=True, separator='/')
    parts[part] = parts.get(part, 0) + leaf.size
  table = rich.table.Table('parameters of', rich.table.Column('number', justify='right'))
  for part, size in parts.items():
    table.add_row(part, f'{size:,}')
  table.add_section()
  table.add_row('all', f'{sum(parts.values()):,}')
  rich.console.Console().print(table)
