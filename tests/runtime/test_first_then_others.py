"""Laws of an action that the first process takes before the others, such as to index files."""

import json

import pytest
from PIL import Image

from contrastive_jax.runtime import processes
from tests import two_processes

OPEN = """
import functools, logging, sys, time
from absl import logging as absl_logging
from contrastive_jax import data
from contrastive_jax.data.sources import files, rows
from contrastive_jax.runtime import processes, waiting
coordinator, number, name, writable = sys.argv[1:]
scan, scanned = rows._scan_lines, []
waiting.SECONDS = 0.3

def slow(path):
  time.sleep(0.5)
  scanned.append(path)
  return scan(path)

def refuse(*_):
  raise PermissionError('read-only')

rows._scan_lines = slow
if writable == 'False':
  files._write_index = refuse
with processes.distributed(coordinator, 2, int(number)):
  opening = functools.partial(data.open_source, name, 'train')
  source = processes.first_then_others(opening, 'opens ' + name)
  print('scanned', len(scanned), 'of', len(source))
"""


def open_with_two(name, writable=True):
  return two_processes.run(OPEN, name, str(writable))


@pytest.mark.slow
def test_the_first_process_indexes_and_the_others_wait_with_a_word(tmp_path):
  Image.new('RGB', (4, 4)).save(tmp_path / 'a.png')
  for shard in range(2):
    rows = [json.dumps({'image': 'a.png', 'caption': 'a'})] * 3
    (tmp_path / f'{shard}.jsonl').write_text('\n'.join(rows))
  name = f'jsonl:{tmp_path}/{{0,1}}.jsonl'

  codes, printed = open_with_two(name, writable=False)
  assert codes == [0, 0], printed
  assert all('scanned 2 of 6' in text and 'every process scans' in text for text in printed)

  codes, (first, second) = open_with_two(name)
  assert codes == [0, 0], (first, second)
  assert 'scanned 2 of 6' in first and 'waiting for the first' not in first
  assert 'scanned 0 of 6' in second
  assert f'waiting for the first process, which opens {name}; this is process 1 of 2' in second

  codes, printed = open_with_two(f'jsonl:{tmp_path}/missing.jsonl')
  assert codes == [1, 1], printed
  assert all("ValueError: config.data.name = 'jsonl" in text for text in printed)


def test_one_process_acts_once_and_raises_as_it_did():
  calls = []
  assert processes.first_then_others(lambda: calls.append(1) or 'result', 'acts') == 'result'
  assert calls == [1]
  with pytest.raises(OSError, match='gone'):
    processes.first_then_others(lambda: (_ for _ in ()).throw(OSError('gone')), 'acts')
