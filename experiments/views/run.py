"""Measures the sweeps of losses of views, a run per arm.

  python -m experiments.views.run                               all sweeps
  python -m experiments.views.run --sweep=batches --sweep=tail  some of them
  python -m experiments.views.run --dry_run                     what remains

A run has one core. Unfinished runs are resumed, and those of results.json are not repeated: delete
it to measure anew. It is written after each run; `python -m experiments.records` then writes the
tables and the plots.
"""

import pathlib
import signal

from absl import app, flags

from experiments import records, side_by_side
from experiments.views import arms, measures, report, subsets

_WORKDIR = flags.DEFINE_string('workdir', 'runs/views', 'Holds a folder per run.')
_SWEEP = flags.DEFINE_multi_enum('sweep', [*arms.SWEEPS], [*arms.SWEEPS], 'Sweeps to measure.')
_DRY_RUN = flags.DEFINE_boolean('dry_run', False, 'Only print what remains.')


def main(_) -> None:
  """Trains what remains, and writes and prints the tables."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  folder = pathlib.Path(_WORKDIR.value)
  launches = arms.launches(_SWEEP.value, folder)
  known = records.rows(report.RESULTS)
  if _DRY_RUN.value:
    print(*(launch.name for launch in launches if launch.name not in known), sep='\n')
    return
  subsets.prepare(folder / 'data', arms.launch_of(arms.EMBEDDER, folder))
  side_by_side.measure(launches, report.RESULTS, measures.row_of)
  print(*(report.TABLES[name]() for name in _SWEEP.value), sep='\n\n')


if __name__ == '__main__':
  app.run(main)
