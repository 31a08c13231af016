"""The lock of a workdir in a bucket: one owner, who may be killed."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from absl import logging

from contrastive_jax.runtime import buckets, lease


@pytest.fixture(autouse=True)
def fast(monkeypatch, caplog):
  logging.use_absl_handler()
  monkeypatch.setattr(lease, 'RENEW_SECONDS', 0.05)
  monkeypatch.setattr(lease, 'EXPIRE_SECONDS', 0.4)
  monkeypatch.setattr(lease, '_POLL_SECONDS', 0.02)


def locks(folder):
  return sorted(path.name for path in folder.iterdir() if path.name.startswith('lock.'))


def abandon(folder, number=1, **changes):
  """Writes the lock of a process on another machine, which does not renew it."""
  content = {'owner': 'process 7 on far', 'machine': 'far', 'pid': 7, 'token': 'other'}
  content |= {'renewed': 3, 'released': False} | changes
  (folder / f'lock.{number}').write_text(json.dumps(content))


def test_a_lock_that_is_renewed_is_refused_and_a_released_one_taken(bucket):
  first = lease.Lease(bucket)
  with pytest.raises(ValueError, match=rf'in use by process {os.getpid()} on .*stop it, or choose'):
    lease.Lease(bucket)
  first.release()
  second = lease.Lease(bucket)
  assert locks(bucket) == ['lock.2']
  second.release()


def test_a_lock_that_is_not_renewed_expires(bucket, caplog):
  abandon(bucket)
  start = time.monotonic()
  taken = lease.Lease(bucket)
  assert time.monotonic() - start >= lease.EXPIRE_SECONDS
  assert 'was in use by process 7 on far; waiting up to' in caplog.text
  assert 'took over' in caplog.text and locks(bucket) == ['lock.2']
  taken.release()


def test_the_lock_of_a_killed_process_of_this_machine_is_taken_at_once(bucket):
  ended = subprocess.run(
    [sys.executable, '-c', 'import os; print(os.getpid())'], capture_output=True
  )
  abandon(bucket, machine=lease._machine(), pid=int(ended.stdout))
  start = time.monotonic()
  lease.Lease(bucket).release()
  assert time.monotonic() - start < lease.EXPIRE_SECONDS


def test_a_process_number_on_another_machine_says_nothing(bucket):
  abandon(bucket, machine='far', pid=2**22 + 1)
  start = time.monotonic()
  lease.Lease(bucket).release()
  assert time.monotonic() - start >= lease.EXPIRE_SECONDS


def test_of_processes_that_start_together_one_gets_the_lock(bucket):
  for existing in (None, 5):
    if existing:
      abandon(bucket, number=existing)
    got, barrier = [], threading.Barrier(4)

    def take(got=got, barrier=barrier):
      barrier.wait()
      try:
        got.append(lease.Lease(bucket))
      except ValueError as error:
        assert 'in use by' in str(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert len(got) == 1
    got[0].release()
    (bucket / locks(bucket)[0]).unlink()


def test_an_owner_that_was_suspended_ends_before_it_writes(bucket, caplog):
  lost = threading.Event()
  first = lease.Lease(bucket, on_loss=lost.set)
  abandon(bucket, number=2)  # another process took it meanwhile
  assert lost.wait(5)
  assert 'taken over by another process; this one ends' in caplog.text
  assert json.loads((bucket / 'lock.2').read_text())['token'] == 'other'
  first._thread.join()


def test_a_server_without_conditions_ends_the_slower_of_two(bucket, monkeypatch):
  lost = threading.Event()
  first = lease.Lease(bucket, on_loss=lost.set)
  abandon(bucket)  # the same object, overwritten
  assert lost.wait(5)
  first._thread.join()


def test_a_bucket_that_is_away_ends_no_run(bucket, monkeypatch, caplog):
  lost = threading.Event()
  first = lease.Lease(bucket, on_loss=lost.set)
  with monkeypatch.context() as patch:
    patch.setattr(buckets.system_of(bucket), 'pipe_file', lambda *_, **__: 1 / 0)
    time.sleep(0.2)
  assert 'could not be renewed' in caplog.text and not lost.is_set()
  first.release()
  lease.Lease(bucket).release()
