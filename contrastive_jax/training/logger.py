"""What a person sees of a run: a progress bar, metrics.jsonl and TensorBoard events."""

import json
import pathlib

import jax
import rich.console
import rich.progress
import rich.table
import tensorboardX


def read_metrics(workdir: pathlib.Path) -> list[dict[str, float]]:
  """The lines of a run's metrics.jsonl; a line cut off by a kill is left out."""
  path = workdir / 'metrics.jsonl'
  if not path.exists():
    return []
  complete = (line for line in path.read_text().splitlines(keepends=True) if line.endswith('\n'))
  return [json.loads(line) for line in complete]


def open_logger(workdir: pathlib.Path, *, step: int, total_steps: int):
  """The run's logger; on all processes but the first, one that is silent."""
  return (
    Logger(workdir, step=step, total_steps=total_steps) if jax.process_index() == 0 else Silence()
  )


class Silence:
  """A logger that writes nothing."""

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def advance(self, step: int) -> None:
    """Nothing."""

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Nothing."""


class Logger:
  """Writes a line of metrics a log, each step once, and shows the way on the terminal.

  On a terminal a progress bar; elsewhere plain lines.
  """

  def __init__(self, workdir: pathlib.Path, *, step: int, total_steps: int):
    """Cuts metrics.jsonl back to `step`, from which the run goes on."""
    kept = [row for row in read_metrics(workdir) if row['step'] <= step]
    rewritten = workdir / 'metrics.jsonl.partial'
    rewritten.write_text(''.join(json.dumps(row) + '\n' for row in kept))
    rewritten.replace(workdir / 'metrics.jsonl')
    self._lines = (workdir / 'metrics.jsonl').open('a')
    self._events = tensorboardX.SummaryWriter(str(workdir / 'tensorboard'), purge_step=step + 1)
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

  def advance(self, step: int) -> None:
    """Moves the bar."""
    self._progress.update(self._task, completed=step)

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Writes one line; call at most once a step."""
    self._lines.write(json.dumps({'step': step} | metrics) + '\n')
    self._lines.flush()
    for name, value in metrics.items():
      self._events.add_scalar(name, value, step)
    shown = '  '.join(
      f'{name.removeprefix("train/")} {value:{form}}'
      for name, form in (('train/loss', '.3f'), ('train/images_per_second', '.0f'))
      if (value := metrics.get(name)) is not None
    )
    self._progress.update(self._task, description=shown.replace('images_per_second', 'images/s'))
    if not self._console.is_terminal:
      task = self._progress.tasks[0]
      recalls = [f'{k} {v:.3f}' for k, v in metrics.items() if k.endswith('recall@1')]
      self._console.print(
        f'step {step}/{task.total}  {"  ".join([task.description, *recalls])}'
        f'  ETA {_clock(task.time_remaining)}',
        highlight=False,
        markup=False,
        soft_wrap=True,
      )


def _clock(seconds: float | None) -> str:
  return '?' if seconds is None else f'{int(seconds) // 60}:{int(seconds) % 60:02}'


def print_parameters(parameters) -> None:
  """A table of the parts of a model, two levels deep, with their numbers of parameters."""
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
