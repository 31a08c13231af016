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

import pathlib
import signal
from collections.abc import Mapping

from absl import app, flags

from experiments import side_by_side
from experiments.claims import claim, results, tables

_WORKDIR = flags.DEFINE_string('workdir', 'runs/claims', 'Holds a folder per run.')
_DRY_RUN = flags.DEFINE_boolean('dry_run', False, 'Only print what remains.')
_CORES = len(side_by_side.CORES)
_JOBS = flags.DEFINE_integer('jobs', _CORES, 'Runs at a time.', lower_bound=1, upper_bound=_CORES)


def folder_of(arm: claim.Arm, seed: int) -> pathlib.Path:
  """The workdir of a run."""
  return pathlib.Path(_WORKDIR.value) / f'{side_by_side.folder_name(str(arm))}-{seed}'


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


def launch_of(arm: claim.Arm, seed: int) -> side_by_side.Launch:
  """The run of an arm with a seed."""
  shared = pathlib.Path(_WORKDIR.value).absolute()
  fields = {
    path: str(value).replace('{folder}', str(shared))
    for path, value in {'seed': seed, **arm.fields}.items()
  }
  config = f'configs/claims.py:{arm.method}'
  return side_by_side.Launch(f'{arm}, seed {seed}', folder_of(arm, seed), config, fields)


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
    side_by_side.train_all([launch_of(*run) for run in runs], _JOBS.value, settle)
    settle()
  for name in claims:
    print(f'{name}: {tables.summary(results.path_of(name))}')


if __name__ == '__main__':
  app.run(main)
