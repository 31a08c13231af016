"""A wait that lasts is named, again and again, and a short one is not."""

import re
import threading
import time

import jax
import numpy as np
import pytest
from absl import logging
from jax.experimental import multihost_utils

from contrastive_jax.data.sources import files
from contrastive_jax.runtime import processes, waiting


@pytest.fixture(autouse=True)
def soon(monkeypatch, caplog):
  """Messages every 40 ms."""
  logging.use_absl_handler()
  monkeypatch.setattr(waiting, 'SECONDS', 0.04)
  caplog.set_level('WARNING')


def said(caplog, what):
  return len(re.findall(f'still {what}, \\d+ s so far', caplog.text))


def lasting(*_, **__):
  time.sleep(0.3)


def test_a_wait_is_named_until_it_ends(caplog):
  with waiting.waiting('reading'):
    lasting()
  count = said(caplog, 'reading')
  assert count >= 2
  lasting()
  assert said(caplog, 'reading') == count


def test_a_short_wait_is_not_named(caplog, monkeypatch):
  monkeypatch.setattr(waiting, 'SECONDS', 1)
  for _ in range(10):
    with waiting.waiting('reading'):
      time.sleep(0.01)
  time.sleep(0.6)
  assert not caplog.text


def test_a_wait_with_a_limit_says_once_when_it_ends(caplog):
  with waiting.waiting('the others', limit=60):
    lasting()
  assert (
    len(re.findall(r'waiting until \d\d:\d\d:\d\d \(60 s left\) for the others', caplog.text)) == 1
  )


def test_every_thread_names_its_wait(caplog):
  def wait(number):
    with waiting.waiting(lambda: f'reading shard {number}'):
      lasting()

  threads = [threading.Thread(target=wait, args=[number]) for number in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert all(said(caplog, f'reading shard {number}') for number in range(3))


def test_an_error_ends_a_wait_and_a_broken_description_ends_none(caplog):
  with pytest.raises(KeyError), waiting.waiting('reading'):
    raise KeyError
  with waiting.waiting(lambda: {}['nothing']):
    lasting()
  with waiting.waiting('writing'):
    lasting()
  assert said(caplog, 'writing') and not said(caplog, 'reading')


def test_a_slow_bucket_is_named(caplog):
  files.retry('gs://bucket/file', lasting)
  assert said(caplog, 'reading gs://bucket/file')


def test_processes_that_wait_for_others_say_so(caplog, monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  others = 'waiting for all other processes; this is process 1 of 2'
  monkeypatch.setattr(multihost_utils, 'process_allgather', lasting)
  processes.gather(np.zeros(1))
  assert said(caplog, others)
  caplog.clear()
  monkeypatch.setattr(multihost_utils, 'broadcast_one_to_all', lambda padded: lasting() or padded)
  processes.on_first_process(lambda: None, 'acts')
  assert said(caplog, 'waiting for the first process, which acts; this is process 1 of 2')
