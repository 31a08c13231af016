"""Runs of several processes: start, agreement, and common exit."""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from absl import logging
from jax._src import distributed as jax_distributed
from jax.experimental import multihost_utils

from contrastive_jax.runtime.waiting import waiting

_MESSAGE_BYTES = 4096  # of an error message that is broadcast
_Result = TypeVar('_Result')

# Prefixes of the environment variables by which JAX detects other processes.
_DETECTED = (
  *('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_NTASKS', 'SLURM_PROCID', 'OMPI_COMM_WORLD_'),
  *('JAX_COORDINATOR_', 'JOB_COMPLETION_INDEX', 'TPU_WORKER_', 'MEGASCALE_'),
)


@contextlib.contextmanager
def distributed(
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  *,
  seconds: float = 300,
) -> Iterator[None]:
  """Initializes `jax.distributed` before JAX's first computation, and exits with all processes.

  On TPU pods, Slurm, Open MPI and Kubernetes, JAX detects the arguments that are None. If it
  detects nothing, this process runs alone; so it does with `processes` 1 and no `coordinator`,
  whatever the environment.

  Args:
    coordinator: HOST:PORT of the first process.
    processes: number of processes.
    process: index of this process, from 0.
    seconds: timeout of the wait for other processes; then the program exits with status 1.

  Raises:
    ValueError: if only some of the three are given and JAX cannot detect the others, or if what it
      detects does not fit.
  """
  if (coordinator, processes) != (None, 1) or process:
    _join(coordinator, processes, process, seconds)
  status = 0
  try:
    yield
  except SystemExit as stop:
    status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
  except BaseException:
    traceback.print_exc()
    status = 1
  if status == 0 and jax.process_count() == 1:
    return
  if status == 0:
    jax.distributed.shutdown()
  sys.stdout.flush()
  sys.stderr.flush()
  # A regular exit waits for the other interpreters, sometimes forever, and threads left behind by
  # an error would keep logging it.
  os._exit(status)


def _join(coordinator, processes, process, seconds):
  given = (coordinator, processes, process) != (None, None, None)
  try:
    with _give_up_after(seconds), waiting(_joining, limit=seconds, after=seconds / 30):
      # JAX aborts the process at its timeout, so ours must come first.
      jax.distributed.initialize(
        coordinator, processes, process, initialization_timeout=int(seconds) + 60
      )
  except ValueError as error:
    # This is JAX's error outside of a cluster.
    if not given and 'coordinator_address' in str(error):
      return
    raise ValueError(
      f'--coordinator={coordinator} --processes={processes} --process={process}: {error} '
      f'{_found()}Give all three, such as --coordinator=10.0.0.1:1234 --processes=2 --process=0, '
      'or --processes=1 for a process that trains alone'
    ) from error


def _joining() -> str:
  """Says who this process is, and which others it waits for."""
  state = jax_distributed.global_state  # JAX has no public way to read it
  if state.coordinator_address is None:
    who = 'JAX looks for the coordinator'
  else:
    who = f'this is process {state.process_id} of {state.num_processes}, and the coordinator is '
    who += state.coordinator_address
  return f'all processes to start: {who}. {_found()}With --processes=1 this process trains alone'


@contextlib.contextmanager
def _give_up_after(seconds):
  """Exits if the context lasts longer."""

  def give_up():
    logging.error('after %g seconds, gave up waiting for %s', seconds, _joining())
    sys.stderr.flush()
    os._exit(1)

  timer = threading.Timer(seconds, give_up)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _found() -> str:
  """Names the environment variables by which JAX may detect other processes."""
  found = [
    f'{name}={os.environ[name]}' for name in sorted(os.environ) if name.startswith(_DETECTED)
  ]
  return f'The environment has {" ".join(found)}. ' if found else ''


def on_first_process(action: Callable[[], None], what: str) -> None:
  """Runs an action on the first process; all wait for it, and all raise its ValueError.

  Args:
    action: the action.
    what: what it does, for the log of those that wait, such as 'locks the workdir'.
  """
  error, message = None, b''
  if jax.process_index() == 0:
    try:
      action()
    except ValueError as raised:
      error, message = raised, str(raised).encode()[:_MESSAGE_BYTES]
  if jax.process_count() > 1:
    padded = np.frombuffer(message.ljust(_MESSAGE_BYTES, b'\0'), np.uint8)
    others = f'the first process, which {what}' if jax.process_index() else 'all other processes'
    with waiting(lambda: _waits_for(others)):
      message = bytes(multihost_utils.broadcast_one_to_all(padded)).rstrip(b'\0')
  if message:
    raise error or ValueError(message.decode(errors='replace'))


def first_then_others(action: Callable[[], _Result], what: str) -> _Result:
  """Runs an action on the first process, and then on the others.

  What the first process stores, such as an index, is there for the others. All processes must call
  this, and all raise a ValueError of the first.

  Args:
    action: the action; its result is returned.
    what: see `on_first_process`.
  """
  results: list[_Result] = []
  on_first_process(lambda: results.append(action()), what)
  return results[0] if results else action()


def gather(values: np.ndarray) -> np.ndarray:
  """Concatenates the values of all processes along the first axis, in order."""
  if jax.process_count() == 1:
    return values
  with waiting(lambda: _waits_for('all other processes')):
    return multihost_utils.process_allgather(values, tiled=True)


def _waits_for(others: str) -> str:
  return f'waiting for {others}; this is process {jax.process_index()} of {jax.process_count()}'
