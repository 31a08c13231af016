"""Several processes, one run: they join, agree, and leave together."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

_MESSAGE_BYTES = 4096


@contextlib.contextmanager
def joined(
  coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Iterator[None]:
  """Joins the run's other processes before JAX's first computation, and ends the program with them.

  On TPU pods, Slurm, Open MPI and Kubernetes, JAX finds out by itself what is not given. Where it
  finds nothing, this process is the only one.

  Args:
    coordinator: HOST:PORT of the first process.
    processes: their number.
    process: this one's number, from 0.

  Raises:
    ValueError: if some of the three are given, and JAX cannot find the others.
  """
  try:
    jax.distributed.initialize(coordinator, processes, process)
  except ValueError as error:
    if (coordinator, processes, process) != (None, None, None):
      raise ValueError(
        f'--coordinator={coordinator} --processes={processes} --process={process}: {error} '
        'Give all three, such as --coordinator=10.0.0.1:1234 --processes=2 --process=0'
      ) from error
    # What JAX says outside of a cluster.
    if 'coordinator_address' not in str(error):
      raise
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
  # Interpreters that end by themselves wait for each other, at times for ever; and threads that are
  # left behind by an error would go on telling of it.
  os._exit(status)


def first_alone(action: Callable[[], None]) -> None:
  """Lets the first process act, and the others wait; its ValueError is raised on all of them."""
  error, message = None, b''
  if jax.process_index() == 0:
    try:
      action()
    except ValueError as raised:
      error, message = raised, str(raised).encode()[:_MESSAGE_BYTES]
  if jax.process_count() > 1:
    padded = np.frombuffer(message.ljust(_MESSAGE_BYTES, b'\0'), np.uint8)
    message = bytes(multihost_utils.broadcast_one_to_all(padded)).rstrip(b'\0')
  if message:
    raise error or ValueError(message.decode(errors='replace'))


def gather(values: np.ndarray) -> np.ndarray:
  """The values of all processes, in their order, along the first axis."""
  if jax.process_count() == 1:
    return values
  return multihost_utils.process_allgather(values, tiled=True)
