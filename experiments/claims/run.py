"""Measures claims: trains the arms of each with several seeds, and settles the verdicts.

  python -m experiments.claims.run                 all claims
  python -m experiments.claims.run byolip slip     some of them
  python -m experiments.claims.run --dry_run       what remains, in runs and minutes

A run has a workdir of its own, one core, and the same data order and start as the other arms of its
seed. Finished runs are used again, also by other claims, and unfinished ones resumed. The first
seed of all arms comes first, so that an interrupted measurement compares equal seeds. Results are
written to experiments/claims/results after each run; `python -m experiments.records` then writes
the tables.
"""

import concurrent.futures
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping

from absl import app, flags

from experiments import records
from experiments.claims import claim, results, tables

ROOT = pathlib.Path(__file__).parents[2]

_WORKDIR = flags.DEFINE_string('workdir', 'runs/claims', 'Holds a folder per run.')
_DRY_RUN = flags.DEFINE_boolean('dry_run', False, 'Only print what remains.')
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else [0]
_JOBS = flags.DEFINE_integer(
  'jobs', len(_CORES), 'Runs at a time.', lower_bound=1, upper_bound=len(_CORES)
)
_RUNNING: set[subprocess.Popen] = set()


def folder_of(arm: claim.Arm, seed: int) -> pathlib.Path:
  """The workdir of a run."""
  return pathlib.Path(_WORKDIR.value) / f'{re.sub("[^a-zA-Z0-9.=_-]+", "_", str(arm))}-{seed}'


def remaining(claims: Mapping[str, claim.Claim]) -> list[tuple[claim.Arm, int]]:
  """The runs that have no result yet, by seed."""
  known = results.rows()
  wanted = {
    (str(arm), seed): (arm, seed)
    for measured in claims.values()
    for arm, seed in measured.runs()
    if not results.matching(known, arm, seed) and not results.finished(folder_of(arm, seed))
  }
  return sorted(wanted.values(), key=lambda run: run[1])


def train(arm: claim.Arm, seed: int, core: int) -> None:
  """Trains a run on one core through launch.py, or resumes it.

  Raises:
    RuntimeError: if it fails; names its log.
  """
  folder, shared = folder_of(arm, seed).absolute(), pathlib.Path(_WORKDIR.value).absolute()
  folder.mkdir(parents=True, exist_ok=True)
  command = [sys.executable, 'launch.py', f'--config=configs/claims.py:{arm.method}']
  command += [f'--workdir={folder}']
  command += [
    f'--config.{path}={value}'.replace('{folder}', str(shared))
    for path, value in {'seed': seed, **arm.fields}.items()
  ]
  with (folder / 'log.txt').open('w') as log:
    run = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    _RUNNING.add(run)
    if hasattr(os, 'sched_setaffinity'):
      os.sched_setaffinity(run.pid, {core})
    code = run.wait()
    _RUNNING.remove(run)
  if code or not (folder / 'results.json').exists():
    raise RuntimeError(f'{arm} with seed {seed} ended with {code}; see {log.name}')
  (folder / 'provenance.json').write_text(json.dumps(records.provenance(), indent=2) + '\n')


def train_all(runs: Iterable[tuple[claim.Arm, int]], settle) -> None:
  """Trains runs side by side, each on a core of its own, and settles after each."""
  cores: queue.Queue[int] = queue.Queue()
  for core in _CORES[: _JOBS.value]:
    cores.put(core)

  def work(arm: claim.Arm, seed: int) -> str:
    core, start = cores.get(), time.perf_counter()
    try:
      train(arm, seed, core)
    finally:
      cores.put(core)
    return f'{arm}, seed {seed}: {time.perf_counter() - start:.0f} s'

  with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
    jobs = [pool.submit(work, arm, seed) for arm, seed in runs]
    try:
      for job in concurrent.futures.as_completed(jobs):
        print(job.result(), flush=True)
        settle()
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      for run in list(_RUNNING):
        run.terminate()  # which saves the run
      raise


def main(arguments: list[str]) -> None:
  """Trains what remains, and settles the verdicts of the claims and of their families."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  claims = {name: claim.read(name) for name in arguments[1:] or claim.names()}
  runs = remaining(claims)
  arms = {str(arm) for arm, _ in runs}
  print(f'{len(runs)} runs of {len(arms)} arms remain; {_JOBS.value} at a time')
  for arm in sorted(arms):
    seeds = [seed for other, seed in runs if str(other) == arm]
    seconds = results.seconds(arm)
    each = f', about {seconds / 60:.1f} minutes each' if seconds else ''
    print(f'  {arm}: {len(seeds)} seeds{each}')

  def settle() -> None:
    for name, measured in claims.items():
      results.write(name, measured, folder_of)
    results.control_families()

  if not _DRY_RUN.value:
    for measured in claims.values():
      measured.prepare(pathlib.Path(_WORKDIR.value).absolute())
    train_all(runs, settle)
    settle()
  for name in claims:
    print(f'{name}: {tables.summary(results.path_of(name))}')


if __name__ == '__main__':
  app.run(main)
