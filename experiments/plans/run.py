"""Plans the papers' models for two TPU pods, and prints the table.

  python experiments/plans/run.py

Needs libtpu (`pip install -e .[tpu]`). Writes results.json after each plan, and resumes from it.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[1]

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
COLUMNS = (
  *('config', 'batch', 'topology', 'flags, --config.', 'per chip', 'state + activations, GiB'),
  *('loss, GiB', 'model FLOPs per step', 'traced to analytic', 'seconds per step, estimate'),
  'of peak, estimate',
)


def plan(config: str, topology: str, extra) -> dict:
  """Runs launch.py, and returns the plan."""
  recipe, variant = config.split(':')
  with tempfile.TemporaryDirectory() as folder:
    subprocess.run(
      [
        *(sys.executable, str(ROOT / 'launch.py'), '--mode=plan', f'--topology={topology}'),
        *(f'--config={ROOT}/configs/{recipe}.py:{variant}', f'--workdir={folder}', *extra),
      ],
      check=True,
    )
    (written,) = pathlib.Path(folder).glob('plan_*.json')
    planned = json.loads(written.read_text())
  del planned['parameters']  # hundreds of lines
  return planned | {'flags': list(extra)}


def row(planned: dict) -> str:
  """Formats a row of the table."""
  gib = {kind: size / 2**30 for kind, size in planned['memory']['kinds'].items()}
  state = gib['parameters'] + gib['optimizer']
  cells = [planned['config'], f'{planned["batch_size"]:,}', planned['topology']]
  cells.append(' '.join(flag.removeprefix('--config.') for flag in planned['flags']) or 'none')
  if not planned['fits']:
    over = (planned['needed_bytes'] - planned['available_bytes']) / 2**30
    return f'| {" | ".join([*cells, f"no, {over:.1f} GiB over"])} | | | | | | |'
  loss, times = planned['memory']['loss'], planned['estimate']
  cells.append(
    f'{planned["needed_bytes"] / 2**30:.1f} of {planned["available_bytes"] / 2**30:.0f} GiB'
  )
  cells.append(f'{state:.1f} + {gib["activations"]:.1f}')
  cells.append(f'{loss / 2**30:.2f}')
  cells.append(f'{planned["flops"]["analytic"]["all"]:.3g}')
  cells.append(f'{planned["flops"]["traced_to_analytic"]:.4f}')
  cells.append(f'{times["step_seconds_overlapped"]:.2f} to {times["step_seconds_in_turn"]:.2f}')
  cells.append(f'{times["utilisation_in_turn"]:.0%} to {times["utilisation_overlapped"]:.0%}')
  return f'| {" | ".join(cells)} |'


def main(_) -> None:
  """Makes the plans missing in results.json."""
  path = FOLDER / 'results.json'
  results = json.loads(path.read_text()) if path.exists() else {}
  for config, topology, extra in PLANS:
    name = f'{config} on {topology}'
    if ONLY.value in name and results.get(name, {}).get('flags') != list(extra):
      results[name] = plan(config, topology, extra)
      path.write_text(json.dumps(results, indent=2) + '\n')
  print(f'| {" | ".join(COLUMNS)} |')
  print(f'|---|---:|---|---|{"---:|" * (len(COLUMNS) - 4)}')
  for config, topology, _ in PLANS:
    if (planned := results.get(f'{config} on {topology}')) is not None:
      print(row(planned))


if __name__ == '__main__':
  app.run(main)
