"""Data selection: full training, random subsets, a fixed subset, and weights by the loss.

  python experiments/data_selection/run.py --workdir=runs/data_selection

Trains every arm with every seed on the validation split of configs/clip.py, at equal images seen.
Skips finished runs, and resumes killed ones. Writes results.json after each, and prints the
README's table.
"""

import json
import pathlib
import statistics
import subprocess
import sys

import numpy as np
from absl import app, flags

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[1]
sys.path.insert(0, str(ROOT))

from configs import clip  # noqa: E402
from contrastive_jax import data  # noqa: E402
from contrastive_jax.data.sources import array_record  # noqa: E402

WORKDIR = flags.DEFINE_string('workdir', 'runs/data_selection', 'Holds a folder a run.')
STEPS = flags.DEFINE_integer('steps', 300, 'Of every run.', lower_bound=1)
SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of an arm.', lower_bound=1)
OVERRIDES = flags.DEFINE_multi_string('override', [], 'FIELD=VALUE of all configs.')
OUTPUT = flags.DEFINE_string('output', str(FOLDER / 'results.json'), 'Output file.')

VALIDATION = clip.get_config('validation')
SPLIT = VALIDATION.evaluation.splits[0]
FULL, WITHOUT = 'full', 'RS2 without replacement, 10%'
FIXED = {'fixed random subset, 10%': 1, 'fixed random subset, 30%': 3}  # tenths
# Arm -> config, and overrides of its validation variant.
ARMS = {
  FULL: ('clip', {}),
  'RS2 with replacement, 10%': ('clip', {'data.subset': 0.1}),
  'RS2 with replacement, 30%': ('clip', {'data.subset': 0.3}),
  WITHOUT: ('clip', {'data.subset': 0.1, 'data.replacement': False}),
  **dict.fromkeys(FIXED, ('clip', {})),
  'reweighted, linupper': ('reweighted', {}),
  'reweighted, quadratic': (
    'reweighted',
    {'objective.reweighted_info_nce.strategy': 'quadratic'},
  ),
}
RECALLS = tuple(f'{way}_recall@{k}' for k in (1, 5) for way in ('image_to_text', 'text_to_image'))


def tenths(folder: pathlib.Path) -> str:
  """Writes a copy of the emoji with a random tenth per example, `tenth_SEED`; returns its name."""
  path = folder / 'tenths' / 'train.array_record'
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    source = data.open_source('emoji', 'train')
    drawn = [
      np.random.default_rng(seed).permutation(len(source)) * 10 // len(source) for seed in range(10)
    ]
    array_record.write(
      str(path),
      (
        source[i] | {f'tenth_{seed}': str(tenth[i]) for seed, tenth in enumerate(drawn)}
        for i in range(len(source))
      ),
    )
  return f'arrayrecord:{path}'


def fields(arm: str, seed: int, folder: pathlib.Path) -> dict:
  """Returns the overrides of an arm."""
  config, own = ARMS[arm]
  if arm in FIXED:
    selections = VALIDATION.data.split.split('+')
    parts = (
      f'{selection[:-1]},tenth_{seed}={tenth}]'
      for selection in selections
      for tenth in range(FIXED[arm])
    )
    own = {'data.name': tenths(folder), 'data.split': '+'.join(parts)}
  if config == 'reweighted':
    own = own | {'objective.reweighted_info_nce.burn_in': STEPS.value // 20}
  shared = {'seed': seed, 'total_steps': STEPS.value, 'evaluation.zero_shot': ()}
  seldom = dict.fromkeys(('evaluate_every', 'checkpoint_every'), STEPS.value)
  return shared | seldom | own


def train(arm: str, seed: int) -> dict[str, float]:
  """Returns the metrics of a run; trains or resumes it if unfinished."""
  folder = pathlib.Path(WORKDIR.value).absolute()
  name = arm.replace(', ', '_').replace(' ', '_').replace('%', '')
  workdir = folder / f'{name}-{seed}'
  differing = [f'--config.{key}={value}' for key, value in fields(arm, seed, folder).items()]
  differing += [f'--config.{override}' for override in OVERRIDES.value]
  if not (workdir / 'results.json').exists():
    command = ['launch.py', f'--config=configs/{ARMS[arm][0]}.py:validation']
    command += [f'--workdir={workdir}', *differing]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
  metrics = json.loads((workdir / 'results.json').read_text())
  kept = {recall: metrics[f'{SPLIT}/{recall}'] for recall in RECALLS}
  return kept | {key: metrics[key] for key in ('images_seen', 'seconds')}


def table(results: dict[str, dict[str, dict]]) -> str:
  """Formats mean and standard deviation over the seeds in Markdown."""
  lines = [f'| | seeds | {" | ".join(RECALLS)} |', '|---|---:' + '|---:' * len(RECALLS) + '|']
  for arm, runs in results.items():
    cells = []
    for recall in RECALLS:
      values = [100 * metrics[recall] for metrics in runs.values()]
      spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
      cells.append(f'{statistics.mean(values):.1f}{spread}')
    lines.append(f'| {arm} | {len(runs)} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def check(results: dict[str, dict[str, dict]]) -> None:
  """Checks equal images seen, and that RS2 without replacement equals full training exactly."""
  seen = {metrics['images_seen'] for runs in results.values() for metrics in runs.values()}
  if len(seen) > 1:
    raise ValueError(f'the runs saw different numbers of images, {sorted(seen)}; train them alike')
  for seed, metrics in results.get(WITHOUT, {}).items():
    full = results[FULL][seed]
    if differing := [recall for recall in RECALLS if metrics[recall] != full[recall]]:
      raise ValueError(f'{WITHOUT} differs from {FULL} in {differing}')


def main(_):
  """Trains the unfinished runs, and compares."""
  output = pathlib.Path(OUTPUT.value)
  results = json.loads(output.read_text()) if output.exists() else {}
  for seed in range(SEEDS.value):
    for arm in ARMS:
      runs = results.setdefault(arm, {})
      # One seed suffices to show that RS2 without replacement is full training.
      if str(seed) not in runs and (arm != WITHOUT or seed == 0):
        runs[str(seed)] = train(arm, seed)
        output.write_text(json.dumps(results, indent=2) + '\n')
        check(results)
  check(results)
  print(table(results))


if __name__ == '__main__':
  app.run(main)
