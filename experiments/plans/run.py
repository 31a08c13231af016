"""Plans the papers' models for two TPU pods.

  python -m experiments.plans.run                  # the fastest settings known
  python -m experiments.plans.run --group=attention

Needs libtpu (`pip install -e .[tpu]`). Writes results.json after each plan,
resumes from it, and prints its tables. The group 'before' was planned at the
commit that its plans name, whose code it is about.
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

_FULL = ('--config.model.remat=full',)
_DOTS = ('--config.model.remat=dots',)
_CUT = '--config.mesh=data:16,fsdp:16'
_XLA = '--config.model.attention=xla'
_SPLASH = '--config.model.attention=splash'
_RING = (_XLA, '--config.gather_bytes=0')
_PIXELS = ('--config.model.image.size=336', '--config.data.size=336')
_PARTS = ('--config.micro_batches=4', *_PIXELS)
# (config, topology, flags) by group.
GROUPS = {
  'before': [
    ('clip:vit_l14', 'v5e:16x16', (*_FULL, *_RING)),
    ('clip:vit_l14', 'v5p:8x8x8', _RING),
    ('coca:large', 'v5e:16x16', (*_FULL, _CUT, '--config.micro_batches=2', *_RING)),
    ('coca:large', 'v5p:8x8x8', (*_DOTS, *_RING)),
    ('coca:giant', 'v5e:16x16', (*_FULL, _CUT, '--config.micro_batches=4', *_RING)),
    ('coca:giant', 'v5p:8x8x8', (*_FULL, *_RING)),
  ],
  'after': [
    ('clip:vit_l14', 'v5e:16x16', (*_FULL, _SPLASH)),
    ('clip:vit_l14', 'v5p:8x8x8', ()),
    ('coca:large', 'v5e:16x16', (*_FULL, _CUT)),
    ('coca:large', 'v5p:8x8x8', ()),
    ('coca:giant', 'v5e:16x16', (*_FULL, _CUT, '--config.micro_batches=2')),
    ('coca:giant', 'v5p:8x8x8', _FULL),
  ],
  'attention': [
    ('clip:vit_l14', topology, (*flags, attention))
    for topology, flags in (
      ('v5e:16x16', _FULL),
      ('v5p:8x8x8', ()),
      ('v5e:16x16', (*_FULL, *_PARTS)),
      ('v5p:8x8x8', (*_DOTS, *_PIXELS)),
    )
    for attention in (_XLA, _SPLASH)
  ],
}

GROUP = flags.DEFINE_enum('group', 'after', [*GROUPS], 'The plans to make.')
ONLY = flags.DEFINE_string('only', '', 'A part of the names of those to make; default all.')


def plan(config: str, topology: str, extra) -> dict:
  """Runs launch.py, and returns the plan."""
  recipe, variant = config.split(':')
  with tempfile.TemporaryDirectory() as folder:
    subprocess.run(
      [
        *(sys.executable, str(records.ROOT / 'launch.py'), '--mode=plan', f'--topology={topology}'),
        *(f'--config={records.ROOT}/configs/{recipe}.py:{variant}', f'--workdir={folder}'),
        *('--search=0', *extra),
      ],
      check=True,
    )
    (written,) = pathlib.Path(folder).glob('plan_*.json')
    planned = json.loads(written.read_text())
  del planned['parameters']  # hundreds of lines
  return planned | {'flags': list(extra), 'commit': records.provenance()['commit']}


def main(_) -> None:
  """Makes the plans missing in results.json."""
  jax.config.update('jax_platforms', 'cpu')  # Chips, if any, are left to the children.
  path = report.RESULTS
  results = records.rows(path)
  own = results.get(GROUP.value, {})
  for config, topology, extra in GROUPS[GROUP.value]:
    name = ' '.join((config, topology, *extra))
    if ONLY.value in name and name not in own:
      own[name] = plan(config, topology, extra)
      names = [' '.join((a, b, *c)) for a, b, c in GROUPS[GROUP.value]]
      results[GROUP.value] = {name: own[name] for name in names if name in own}
      records.write(path, results, resumed=True)
  for table in report.TABLES.values():
    print(table(), '\n')


if __name__ == '__main__':
  app.run(main)
