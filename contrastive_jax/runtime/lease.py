"""A lock on a folder in a bucket, which a process that was killed does not hold forever.

The lock is the object `lock.N` of the largest N. Its owner writes it anew every 15 seconds. A
process takes the lock by creating `lock.N+1`, once `lock.N` says that it is released, its owner is
a process of this machine that is gone, or it stayed as it is for a minute. Clocks are not compared.

If the server creates an object only where there is none, as AWS, Google Cloud and MinIO do, one
process at most holds the lock, unless its owner was suspended for a minute: it then ends once it
runs again, before it next writes the lock. On a server that ignores the condition, two processes
that start at the same moment may both run for up to 15 seconds; then one ends.
"""

import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import logging

from contrastive_jax.runtime import buckets
from contrastive_jax.runtime.waiting import waiting

RENEW_SECONDS = 15.0
EXPIRE_SECONDS = 60.0
_POLL_SECONDS = 1.0
_TOKENS: set[str] = set()  # of the leases of this process


class _Lock(NamedTuple):
  """The newest lock of a folder; number 0 and no content if there is none."""

  number: int
  content: dict[str, Any]


class Lease:
  """Holds the lock of a folder until `release`, or until the process ends.

  Args:
    folder: in a bucket.
    on_loss: called by the thread that renews the lock if another process has taken it; by default
      it ends the process, since two of them would write the same files.

  Raises:
    ValueError: if another process holds the lock; names it.
  """

  def __init__(self, folder: pathlib.Path, on_loss: Callable[[], None] = lambda: os._exit(1)):
    self._folder, self._on_loss = folder, on_loss
    self._system = buckets.system_of(folder)
    self._content = {
      'owner': f'process {os.getpid()} on {socket.gethostname()}',
      'machine': _machine(),
      'pid': os.getpid(),
      'token': uuid.uuid4().hex,
      'renewed': 0,
      'released': False,
    }
    _TOKENS.add(self._content['token'])
    with waiting(f'taking the lock of {folder}'):
      while not self._create((found := self._wait_for(self._newest())).number + 1):
        pass
    for number in range(found.number, 0, -1):  # usually one
      try:
        self._system.rm_file(self._path(number))
      except FileNotFoundError:
        break
    self._released = threading.Event()
    self._thread = threading.Thread(target=self._renew, name='lease', daemon=True)
    self._thread.start()

  def release(self) -> None:
    """Lets another process take the lock."""
    self._released.set()
    self._thread.join()
    try:
      self._write({'released': True})
    except Exception as error:  # botocore, aiohttp and gcsfs raise their own
      logging.warning('the lock of %s expires in a minute: %r', self._folder, error)

  def _path(self, number: int) -> str:
    return f'{self._folder}/lock.{number}'

  def _newest(self) -> _Lock:
    while True:
      # Listing the folder itself would raise where nothing is in it.
      paths = self._system.glob(f'{self._folder}/lock.*')
      numbers = [int(name) for path in paths if (name := path.rpartition('.')[2]).isdigit()]
      if not numbers:
        return _Lock(0, {})
      try:
        return _Lock(max(numbers), json.loads(self._system.cat_file(self._path(max(numbers)))))
      except FileNotFoundError:
        continue  # replaced since

  def _wait_for(self, lock: _Lock) -> _Lock:
    """Returns the lock once it may be replaced."""
    if not lock.number or lock.content['released'] or _is_gone(lock.content):
      return lock
    owner, until = lock.content['owner'], time.monotonic() + EXPIRE_SECONDS
    logging.warning(
      'workdir %s was in use by %s; waiting up to %g s to see whether it still is',
      *(self._folder, owner, EXPIRE_SECONDS),
    )
    while time.monotonic() < until:
      time.sleep(_POLL_SECONDS)
      newest = self._newest()
      if newest.content.get('released'):
        return newest
      if newest != lock:
        raise ValueError(
          f'workdir {self._folder} is in use by {newest.content.get("owner", owner)}; wait for it, '
          'stop it, or choose another --workdir'
        )
    logging.warning('took over workdir %s from %s, which ended', self._folder, owner)
    return lock

  def _create(self, number: int) -> bool:
    """Creates the lock of a number; returns whether this process holds it."""
    self._number = number
    try:
      self._system.pipe_file(self._path(number), self._encode(), mode='create')
    except FileExistsError:
      return False
    if self._is_held():  # not if another replaced it, or numbers have gone on meanwhile
      return True
    newest = self._newest()
    if newest.number > number:
      self._system.rm_file(self._path(number))
    return False

  def _is_held(self) -> bool:
    newest = self._newest()
    return newest.number == self._number and newest.content['token'] == self._content['token']

  def _encode(self) -> bytes:
    return json.dumps(self._content).encode()

  def _write(self, changes: dict[str, Any]) -> None:
    """Writes the lock, unless another process has taken it."""
    if not self._is_held():
      logging.error(
        'workdir %s was taken over by another process; this one ends, and the last checkpoint is '
        'kept. Was it suspended for a minute?',
        self._folder,
      )
      self._released.set()
      self._on_loss()
      return
    self._content |= changes
    self._system.pipe_file(self._path(self._number), self._encode())

  def _renew(self):
    while not self._released.wait(RENEW_SECONDS):
      try:
        self._write({'renewed': self._content['renewed'] + 1})
      except Exception as error:  # as in `release`
        logging.warning('the lock of %s could not be renewed: %r', self._folder, error)


def _machine() -> str:
  """Identifies the machine since its start, and the space of its process numbers."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{socket.gethostname()} {boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:
    return ''


def _is_gone(content: dict[str, Any]) -> bool:
  """Whether the owner is a process of this machine that has ended."""
  if not content['machine'] or content['machine'] != _machine():
    return False
  try:
    os.kill(content['pid'], 0)
  except ProcessLookupError:
    return True
  except OSError:
    return False
  return content['pid'] == os.getpid() and content['token'] not in _TOKENS
