"""Step times and profiler traces of a run."""

import contextlib
import pathlib
import time

import jax
from absl import logging

from contrastive_jax.runtime import buckets


class StepTimer:
  """Measures seconds per step, and the part of them spent waiting for data.

  Attributes:
    step: the step up to which times were returned.
  """

  def __init__(self, step: int):
    """Starts after a step."""
    self.step, self._start, self._waited = step, time.perf_counter(), 0.0

  def seconds_per_step(self, step: int) -> tuple[float, float]:
    """Mean seconds per step since the last call.

    Args:
      step: the last completed step.

    Returns:
      Seconds per step, and seconds per step spent waiting for data.
    """
    now, steps = time.perf_counter(), step - self.step
    seconds = (now - self._start) / steps, self._waited / steps
    self.step, self._start, self._waited = step, now, 0.0
    return seconds

  @contextlib.contextmanager
  def waiting(self):
    """A context whose time counts as waiting for data."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start

  @contextlib.contextmanager
  def paused(self):
    """A context whose time does not count, such as an evaluation."""
    start = time.perf_counter()
    yield
    self._start += time.perf_counter() - start


class Profiler(contextlib.AbstractContextManager):
  """Writes a trace of some steps, for xprof and Perfetto.

  Leaving the context stops a trace that is still running.

  Attributes:
    first: the first step traced.
    last: the last step traced; `first - 1` if no step is.
  """

  def __init__(self, folder: pathlib.Path, *, after: int, steps: int, until: int):
    """Traces some steps; warns if the run is too short for all of them.

    Args:
      folder: where traces are written.
      after: step after which the trace starts.
      steps: number of steps to trace; 0 for no trace.
      until: the last step of the run.
    """
    self._folder, self._running = folder, False
    self._files: buckets.Mirror | None = None
    self.first, self.last = after + 1, min(after + steps, until)
    if after + steps > until and steps:
      logging.warning(
        'config.profile = %d: %d steps are traced, because the trace starts at step %d and '
        'config.total_steps = %d',
        steps,
        max(0, until - after),
        self.first,
        until,
      )

  def annotate(self, step: int) -> contextlib.AbstractContextManager:
    """A context that names a step in the trace; starts the trace at the first step."""
    if not self.first <= step <= self.last:
      return contextlib.nullcontext()
    if step == self.first:
      self._files = buckets.Mirror(self._folder)
      jax.profiler.start_trace(str(self._files.local), create_perfetto_trace=True)
      self._running = True
    return jax.profiler.StepTraceAnnotation('train', step_num=step)

  def end(self, step: int, metrics) -> None:
    """Stops the trace after its last step, once the metrics of that step are computed."""
    if step == self.last and self._running:
      jax.block_until_ready(metrics)
      self._stop()
      logging.warning('traced steps %d to %d into %s', self.first, self.last, self._folder)

  def __exit__(self, *error) -> None:
    if self._running:
      self._stop()
      logging.warning(
        'the trace in %s is incomplete: step %d was not reached', self._folder, self.last
      )

  def _stop(self):
    self._running = False
    jax.profiler.stop_trace()
    assert self._files is not None, 'a trace that runs was started'
    self._files.close()
