"""Says what a process waits for, once a wait lasts."""

import os
import threading
import time
from collections.abc import Callable

from absl import logging

# Seconds before the first message, and between messages.
SECONDS = 10.0

_CHECK_SECONDS = 0.1


class waiting:  # noqa: N801  a context manager, named like those of `contextlib`
  """Context manager that logs what this process waits for, if the wait lasts.

      with waiting('compiling the train step'):
        state, metrics = train_step(state, batch)

  A wait without a limit is reported every `SECONDS` with its duration; one with a limit is reported
  once, with the time at which it ends. A short wait costs about a microsecond, in any thread.

  Args:
    what: what the process does or waits for, or a function that returns it.
    limit: seconds after which the caller gives up; None if it never does.
    after: seconds before the first message; default `SECONDS`.
  """

  __slots__ = ('_interval', '_limit', '_said', '_start', '_what', 'due')

  def __init__(
    self, what: str | Callable[[], str], *, limit: float | None = None, after: float | None = None
  ):
    self._what, self._limit, self._interval = what, limit, SECONDS if after is None else after

  def __enter__(self):
    self._start = time.monotonic()
    self.due = self._start + self._interval
    _WATCH.add(self)
    return self

  def __exit__(self, *_):
    _WATCH.remove(self)

  def say(self, now: float) -> None:
    """Logs the wait, and sets when it is due next."""
    what = self._what() if callable(self._what) else self._what
    waited = now - self._start
    if self._limit is None:
      self.due = now + self._interval
      logging.warning('still %s, %.0f s so far', what, waited)
      return
    self.due = float('inf')
    left = self._limit - waited
    until = time.strftime('%H:%M:%S', time.localtime(time.time() + left))
    logging.warning('waiting until %s (%.0f s left) for %s', until, left, what)


class _Watch:
  """One daemon thread that looks at the waits of all threads while there are any."""

  def __init__(self):
    self.forget()
    if hasattr(os, 'register_at_fork'):
      os.register_at_fork(after_in_child=self.forget)  # a fork copies no thread

  def forget(self) -> None:
    """Drops all waits and the thread."""
    self._waits: dict[int, waiting] = {}
    self._active = threading.Event()
    self._start_lock = threading.Lock()
    self._thread: threading.Thread | None = None

  def add(self, wait: waiting) -> None:
    """Watches a wait."""
    self._waits[id(wait)] = wait
    if not self._active.is_set():
      self._active.set()
    if self._thread is None:
      with self._start_lock:
        if self._thread is None:
          self._thread = threading.Thread(target=self._run, name='waiting', daemon=True)
          self._thread.start()

  def remove(self, wait: waiting) -> None:
    """Stops watching a wait."""
    self._waits.pop(id(wait), None)

  def _run(self):
    pause = threading.Event()
    while True:
      self._active.wait()
      pause.wait(min(_CHECK_SECONDS, SECONDS / 4))
      now = time.monotonic()
      for wait in list(self._waits.values()):
        if now >= wait.due:
          try:
            wait.say(now)
          except Exception:  # a description must not end the messages
            logging.exception('a wait cannot be described')
      if not self._waits:
        self._active.clear()
        if self._waits:  # added since
          self._active.set()


_WATCH = _Watch()
