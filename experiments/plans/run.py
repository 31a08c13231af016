"""Plans the papers' models for two TPU pods.

  python -m experiments.plans.run

Needs libtpu (`pip install -e .[tpu]`). Writes results.json after each plan,
resumes from it, and prints its table.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import jax
from absl import app, flags

from experiments import records
from experiments.plans import report

ONLY = flags.DEFINE_string('only', '', 'A part of the names of those to plan; default all.')

_FULL = ('--config.model.remat=full',)
_CUT = '--config.mesh=data:16,fsdp:16'
# (config, topology, flags)
PLANS = [
  ('clip:vit_l14', 'v5e:16x16', _FULL),
  ('clip:vit_l14', 'v5p:8x8x8', ()),
  ('coca:large', 'v5e:16x16', (*_FULL, _CUT, '--config.micro_batches=2')),
  ('coca:large', 'v5p:8x8x8', ('--config.model.remat=dots',)),
  ('coca:giant', 'v5e:16x16', (*_FULL, _CUT, '--config.micro_batches=4')),
  ('coca:giant', 'v5p:8x8x8', _FULL),
]


def plan(config: str, topology: str, extra) -> dict:
  """Runs launch.py, and returns the plan."""
  recipe, variant = config.split(':')
  with tempfile.TemporaryDirectory() as folder:
    subprocess.run(
      [
        *(sys.executable, str(records.ROOT / 'launch.py'), '--mode=plan', f'--topology={topology}'),
        *(f'--config={records.ROOT}/configs/{recipe}.py:{variant}', f'--workdir={folder}', *extra),
      ],
      check=True,
    )
    (written,) = pathlib.Path(folder).glob('plan_*.json')
    planned = json.loads(written.read_text())
  del planned['parameters']  # hundreds of lines
  return planned | {'flags': list(extra)}


def main(_) -> None:
  """Makes the plans missing in results.json."""
  jax.config.update('jax_platforms', 'cpu')  # Chips, if any, are left to the children.
  path = report.RESULTS
  results = records.read(path)['results'] if path.exists() else {}
  names = [f'{config} on {topology}' for config, topology, _ in PLANS]
  for name, (config, topology, extra) in zip(names, PLANS, strict=True):
    if ONLY.value in name and results.get(name, {}).get('flags') != list(extra):
      results[name] = plan(config, topology, extra)
      ordered = {name: results[name] for name in names if name in results}
      records.write(path, ordered, resumed=True)
  print(report.plans(path))


if __name__ == '__main__':
  app.run(main)
