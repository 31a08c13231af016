"""What the loop keeps an eye on: bad steps, time, and a trace where one is asked for."""

import contextlib
import json
import pathlib
import time

import jax
import numpy as np
from absl import logging

from contrastive_jax.runtime import processes

# Skipping so many steps in a row leads nowhere.
_MOST_SKIPPED = 10


class BadSteps:
  """Stops the run at a bad step, or counts it where the step itself has skipped it.

  Either way the ids of the batch's examples are kept, in bad_step_STEP.json.
  """

  def __init__(self, workdir: pathlib.Path, *, skip: bool):
    self.count = 0
    self._workdir, self._skip = workdir, skip
    self._in_a_row = 0
    self._pending = None

  def add(self, step: int, metrics, ids: np.ndarray) -> None:
    """Takes note of a step, and checks the one before: the host goes on while the device works."""
    self.check()
    self._pending = step, metrics, ids

  def check(self) -> None:
    """Checks the last step noted.

    Raises:
      FloatingPointError: if it was bad, and bad steps are not skipped, or too many were in a row.
    """
    if self._pending is None:
      return
    (step, metrics, ids), self._pending = self._pending, None
    if not metrics['bad']:
      self._in_a_row = 0
      return
    self.count += 1
    self._in_a_row += 1
    values = {name: float(metrics[name]) for name in ('loss', 'gradient_norm')}
    path = self._workdir / f'bad_step_{step}.json'
    ids = processes.gather(ids)
    if jax.process_index() == 0:
      path.write_text(json.dumps({'step': step} | values | {'ids': ids.tolist()}) + '\n')
    told = ', '.join(f'{name} is {value:.4g}' for name, value in values.items())
    told = f"step {step}: {told}; the batch's example ids are in {path}"
    if self._skip and self._in_a_row < _MOST_SKIPPED:
      logging.warning('skipped %s', told)
      return
    raise FloatingPointError(
      f'{told}. The last checkpoint is kept. Try a lower config.optimizer.learning_rate, a '
      "config.optimizer.clip_norm, float32, or config.bad_steps.action = 'skip'"
    )


class Clock:
  """Counts seconds a step, and what of them the loop waited for data; evaluations are left out."""

  def __init__(self, step: int):
    self._step, self._start, self._waited = step, time.perf_counter(), 0.0

  def seconds_per_step(self, step: int) -> tuple[float, float]:
    """(all, waiting for data), since the last call."""
    now, steps = time.perf_counter(), step - self._step
    seconds = (now - self._start) / steps, self._waited / steps
    self._step, self._start, self._waited = step, now, 0.0
    return seconds

  @contextlib.contextmanager
  def waiting(self):
    """Counts the time of what is done within as waiting for data."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start

  @contextlib.contextmanager
  def stopped(self):
    """Leaves out the time of what is done within."""
    start = time.perf_counter()
    yield
    self._start += time.perf_counter() - start


class Trace(contextlib.AbstractContextManager):
  """Traces some steps into a folder that xprof and Perfetto open, after the first few.

  Leaving the context ends a trace whose last step was not reached.

  Attributes:
    first: the first step that is traced.
    last: the last one; with 0 steps, before the first.
  """

  def __init__(self, folder: pathlib.Path, *, after: int, steps: int, until: int):
    """Traces `steps` steps after step `after`, at most to `until`, the last step of the run."""
    self._folder, self._running = folder, False
    self.first, self.last = after + 1, min(after + steps, until)
    if after + steps > until and steps:
      logging.warning(
        'config.profile = %d: %d steps are traced, as a trace begins at step %d and '
        'config.total_steps = %d',
        steps,
        max(0, until - after),
        self.first,
        until,
      )

  def at(self, step: int) -> contextlib.AbstractContextManager:
    """A context for one step, at the first of which the trace begins."""
    if not self.first <= step <= self.last:
      return contextlib.nullcontext()
    if step == self.first:
      jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
      self._running = True
    return jax.profiler.StepTraceAnnotation('train', step_num=step)

  def end(self, step: int, metrics) -> None:
    """Ends the trace after its last step, whose metrics are waited for."""
    if step == self.last and self._running:
      jax.block_until_ready(metrics)
      self._stop()
      logging.warning('traced steps %d to %d into %s', self.first, self.last, self._folder)

  def __exit__(self, *error) -> None:
    if self._running:
      self._stop()
      logging.warning('the trace in %s ends with the run, before step %d', self._folder, self.last)

  def _stop(self):
    self._running = False
    jax.profiler.stop_trace()
