"""Notice of the machine's end: a SIGTERM, which clouds and schedulers send before they take it."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preempted(SystemExit):
  """Raised once the step's checkpoint is under way; the process ends with status 0."""

  def __init__(self, step: int):
    super().__init__(0)
    self.step = step

  def __str__(self):
    return f'stopped by SIGTERM, saved at step {self.step}; the same command goes on from there'


class Preemption:
  """Listens for SIGTERM inside a `with`, in the main thread; several processes agree on a step.

  They do so through JAX's coordination service, which listens by itself once `jax.distributed` is
  initialised.
  """

  def __init__(self):
    self._noticed = False
    self._alone = jax.process_count() == 1
    # Python handles signals in its main thread alone.
    self._listens = self._alone and threading.current_thread() is threading.main_thread()

  def __enter__(self):
    if self._listens:
      self._before = signal.signal(signal.SIGTERM, self._notice)
    return self

  def __exit__(self, *_):
    if self._listens:
      signal.signal(signal.SIGTERM, self._before)

  def reached(self, step: int) -> bool:
    """Whether this is the step to save and stop at; the same one on every process."""
    if self._alone:
      return self._noticed
    return multihost_utils.reached_preemption_sync_point(step)

  def _notice(self, *_):
    self._noticed = True
