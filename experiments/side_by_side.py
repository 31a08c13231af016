"""Trains runs side by side through launch.py, each on a core of its own."""

import concurrent.futures
import json
import os
import pathlib
import queue
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from experiments import records

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = 'results.json'  # of a finished run, in its workdir
# Metrics of recall at 1, and how tables name them.
RECALL = {
  'image_to_text_recall@1': 'image to text',
  'text_to_image_recall@1': 'text to image',
}
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else [0]

_RUNNING: set[subprocess.Popen] = set()


class Launch(NamedTuple):
  """One run of launch.py.

  Attributes:
    name: what messages call it.
    folder: its workdir.
    config: value of --config.
    fields: overrides by path below `config`.
  """

  name: str
  folder: pathlib.Path
  config: str
  fields: Mapping[str, Any]


def folder_name(name: str) -> str:
  """Returns a name without the characters that file systems or shells refuse."""
  return re.sub('[^a-zA-Z0-9.=_-]+', '_', name)


def train(launch: Launch, core: int) -> None:
  """Trains a run on one core, or resumes it, and writes its provenance.

  Raises:
    RuntimeError: if it fails; names its log.
  """
  folder = launch.folder.absolute()
  folder.mkdir(parents=True, exist_ok=True)
  command = [sys.executable, 'launch.py', f'--config={launch.config}', f'--workdir={folder}']
  command += [f'--config.{path}={value}' for path, value in launch.fields.items()]
  with (folder / 'log.txt').open('w') as log:
    run = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    _RUNNING.add(run)
    if hasattr(os, 'sched_setaffinity'):
      os.sched_setaffinity(run.pid, {core})
    code = run.wait()
    _RUNNING.remove(run)
  if code or not (folder / RESULTS).exists():
    raise RuntimeError(f'{launch.name} ended with {code}; see {log.name}')
  (folder / 'provenance.json').write_text(json.dumps(records.provenance(), indent=2) + '\n')


def measure(
  launches: Iterable[Launch], path: pathlib.Path, row_of: Callable[[pathlib.Path], dict[str, float]]
) -> None:
  """Trains the runs that a results file has no row of, and adds their rows after each run.

  Args:
    launches: the runs; their names are the keys of the rows.
    path: the results file, {name: row}.
    row_of: workdir of a finished run -> its row.
  """
  known = records.rows(path)
  remaining = [launch for launch in launches if launch.name not in known]

  def write() -> None:
    finished = [launch for launch in remaining if (launch.folder / RESULTS).exists()]
    rows = known | {launch.name: row_of(launch.folder) for launch in finished}
    records.write(path, rows, resumed=True)

  train_all(remaining, len(CORES), write)


def train_all(launches: Iterable[Launch], jobs: int, then: Callable[[], None]) -> None:
  """Trains runs, at most `jobs` at a time, and calls `then` after each.

  An interruption saves the runs in progress, which the next call resumes.
  """
  cores: queue.Queue[int] = queue.Queue()
  for core in CORES[:jobs]:
    cores.put(core)

  def work(launch: Launch) -> str:
    core, start = cores.get(), time.perf_counter()
    try:
      train(launch, core)
    finally:
      cores.put(core)
    return f'{launch.name}: {time.perf_counter() - start:.0f} s'

  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    futures = [pool.submit(work, launch) for launch in launches]
    try:
      for future in concurrent.futures.as_completed(futures):
        print(future.result(), flush=True)
        then()
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      for run in list(_RUNNING):
        run.terminate()  # which saves the run
      raise
