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
  if code or not (folder / 'results.json').exists():
    raise RuntimeError(f'{launch.name} ended with {code}; see {log.name}')
  (folder / 'provenance.json').write_text(json.dumps(records.provenance(), indent=2) + '\n')


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
