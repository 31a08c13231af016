"""Seconds per step, and a trace where one is asked for."""

import contextlib
import pathlib
import time

import jax
from absl import logging


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
