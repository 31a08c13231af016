"""Preemption: reacts to SIGTERM, which clouds and schedulers send before they stop a machine."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preempted(SystemExit):
  """Raised once the step's checkpoint is being saved; the process exits with status 0."""

  def __init__(self, step: int):
    super().__init__(0)
    self.step = step

  def __str__(self):
    return f'stopped by SIGTERM, saved at step {self.step}; the same command resumes from there'


class Preemption:
  """Context manager that listens for SIGTERM in the main thread; processes agree on a step.

  They agree through JAX's coordination service, which itself listens once `jax.distributed` is
  initialized.
  """

  def __init__(self):
    self._noticed = False
    self._alone = jax.process_count() == 1
    # Python handles signals only in its main thread.
    self._listens = self._alone and threading.current_thread() is threading.main_thread()

  def __enter__(self):
    if self._listens:
      self._before = signal.signal(signal.SIGTERM, self._notice)
    return self

  def __exit__(self, *_):
    if self._listens:
      signal.signal(signal.SIGTERM, self._before)

  def reached(self, step: int) -> bool:
    """Whether to save and stop at this step; the same on every process."""
    if self._alone:
      return self._noticed
    return multihost_utils.reached_preemption_sync_point(step)

  def _notice(self, *_):
    self._noticed = True
